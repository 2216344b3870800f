//! Authentication and rights: the personal room, newer tokens, expiry, and disconnects by user.

use super::control::stored;
use super::*;
use crate::broker::LogRequest;
use crate::model::identity::{Grants, Times};
use crate::model::pattern::Pattern;
use crate::model::rights::{Policy, Rule};

/// A token that permits its user everything in rooms of this pattern.
pub(super) fn holder(user: &str, pattern: &str, expires: u64) -> Arc<Identity> {
    let patterns: Arc<[Pattern]> = [Pattern::new(pattern).unwrap()].into();
    Arc::new(Identity {
        user: crate::model::id::UserName::new(user).unwrap(),
        grants: Grants::new([(); 4].map(|()| patterns.clone())),
        info: None,
        times: Some(Times {
            issued: Some(expires - 60_000),
            expires,
            ends: expires + 4_000,
        }),
    })
}

pub(super) fn identified(session: u64, identity: Arc<Identity>) -> Event {
    Event::Identified {
        session: SessionId(session),
        id: Some(RequestId::from(9)),
        identity,
    }
}

/// A dispatcher that requires tokens, and has read that none is revoked.
pub(super) fn secured() -> Bench {
    let mut bench = Bench::new();
    bench.dispatcher.turn.settings.rights = Rights {
        rules: vec![Rule {
            rooms: Pattern::new("public.*").unwrap(),
            policy: Policy::Public,
        }],
        open: false,
    };
    bench.dispatcher.follow_control();
    bench.turn([]);
    let ticket = read_ticket(&bench.turn([following("$control.revoked")]));
    let requests = bench.turn([page(ticket, 0, 1, vec![])]);
    let requests = bench.turn([stored(&requests, &[])]);
    assert!(requests.is_empty(), "{requests:?}");
    bench
}

impl Bench {
    /// Opens a session that authenticates. Its personal room has no other member here and is at
    /// `offset`.
    pub(super) fn signed_in(&mut self, session: u64, identity: &Arc<Identity>, offset: u64) {
        self.open(session);
        let requests = self.turn([identified(session, identity.clone())]);
        if !requests.is_empty() {
            let requests = self.turn([following(identity.user.room().as_str())]);
            let ticket = read_ticket(&requests);
            self.turn([page(ticket, offset, offset + 1, vec![])]);
        }
        assert_eq!(self.received(session)[0]["offset"], offset);
    }

    pub(super) fn expires_in(&self, seconds: u64) -> u64 {
        self.now.unix_ms + 1000 * seconds
    }

    /// The code of the close frame, if that is the last frame of a session.
    pub(super) fn closed(&mut self, session: u64) -> Option<u16> {
        let chunks = self.chunks(session);
        match chunks.last()?.as_ref() {
            [0x88, _, high, low, ..] => Some(u16::from_be_bytes([*high, *low])),
            _ => None,
        }
    }
}

#[test]
fn authentication_joins_the_personal_room_and_returns_its_position() {
    let mut bench = secured();
    let ada = holder("ada", "*", bench.expires_in(60));
    bench.open(1);
    let requests = bench.turn([identified(1, ada.clone())]);
    assert!(
        matches!(&requests[..], [Request::Log(LogRequest::Follow(room))] if room.as_str() == "@ada")
    );
    assert!(
        bench.received(1).is_empty(),
        "the position of the room is unknown"
    );
    let requests = bench.turn([following("@ada")]);
    let ticket = read_ticket(&requests);
    bench.turn([page(ticket, 7, 8, vec![])]);
    let answer = bench.received(1);
    let expected = json!({
        "type": "ok", "id": 9, "user": "ada", "room": "@ada", "epoch": Epoch::new(EPOCH),
        "offset": 7, "expires": 60,
    });
    assert_eq!(answer, [expected]);
    bench.turn([message("@ada", 8, "for you")]);
    assert_eq!(bench.offsets(1), [8]);
    // The next connection of the user needs no read.
    bench.signed_in(2, &ada, 8);
    bench.turn([message("@ada", 9, "for both")]);
    assert_eq!((bench.offsets(1), bench.offsets(2)), (vec![9], vec![9]));
}

#[test]
fn authentication_in_the_handshake_is_answered_after_the_welcome() {
    let mut bench = secured();
    let limits = OutboxLimits {
        bytes: OUTBOX,
        frames: 100,
    };
    let (outbox, reader) = outbox(limits, || ());
    bench.outboxes.insert(1, reader);
    let identity = Some(holder("ada", "*", bench.expires_in(60)));
    let (session, protocol) = (SessionId(1), Protocol::Native);
    bench.turn([Event::Opened {
        session,
        protocol,
        identity,
        outbox,
    }]);
    let welcome = bench.received(1);
    assert_eq!((&welcome[0]["user"], welcome.len()), (&json!("ada"), 1));
    // Redis takes longer than a join may wait: the position is sent all the same.
    bench.now.instant += Duration::from_secs(60);
    bench.turn([Event::Tick]);
    assert!(bench.received(1).is_empty());
    let requests = bench.turn([following("@ada")]);
    let ticket = read_ticket(&requests);
    bench.turn([page(ticket, 7, 8, vec![])]);
    let received = bench.received(1);
    assert_eq!(
        (
            &received[0]["id"],
            &received[0]["room"],
            &received[0]["offset"]
        ),
        (&json!(null), &json!("@ada"), &json!(7))
    );
}

#[test]
fn authentication_is_answered_at_its_deadline_and_the_position_follows() {
    let mut bench = secured();
    bench.open(1);
    bench.turn([identified(1, holder("ada", "*", bench.expires_in(60)))]);
    bench.now.instant += Duration::from_secs(6);
    bench.turn([Event::Tick]);
    let answer = bench.received(1);
    assert_eq!(
        (&answer[0]["id"], &answer[0]["user"], &answer[0]["offset"]),
        (&json!(9), &json!("ada"), &json!(null))
    );
    let requests = bench.turn([following("@ada")]);
    let ticket = read_ticket(&requests);
    bench.turn([page(ticket, 7, 8, vec![])]);
    let received = bench.received(1);
    assert_eq!(
        (&received[0]["id"], &received[0]["offset"]),
        (&json!(null), &json!(7))
    );
}

#[test]
fn personal_room_is_recovered_and_cannot_be_left() {
    let mut bench = secured();
    let ada = holder("ada", "*", bench.expires_in(60));
    bench.signed_in(1, &ada, 7);
    bench.turn([message("@ada", 8, "for you")]);
    bench.received(1);
    bench.turn([rejoin(1, "@ada", EPOCH, 7)]);
    let received = bench.received(1);
    assert_eq!(received[0]["recovered"], true, "{received:?}");
    assert_eq!(received[1]["offset"], 8, "{received:?}");
    bench.turn([leave(1, "@ada")]);
    assert_eq!(bench.received(1)[0]["code"], "forbidden");
    // A join that overtakes the one of the authentication: both are answered.
    bench.open(2);
    bench.turn([
        identified(2, holder("bob", "*", bench.expires_in(60))),
        join(2, "@bob"),
    ]);
    let received = bench.received(2);
    assert_eq!(
        (&received[0]["user"], &received[0]["offset"]),
        (&json!("bob"), &json!(null))
    );
}

#[test]
fn personal_room_is_joined_and_read_by_its_user_alone_and_published_to_by_right() {
    let mut bench = secured();
    let expires = bench.expires_in(60);
    bench.signed_in(1, &holder("ada", "*", expires), 0);
    bench.signed_in(2, &holder("bob", "@*", expires), 0);
    let history = |session| command(session, history("@bob"));
    let publish = |session, room| command(session, Command::Publish(Box::new(publish(room, None))));
    for event in [join(1, "@bob"), history(1), publish(1, "@bob")] {
        assert!(bench.turn([event]).is_empty());
        assert_eq!(bench.received(1)[0]["code"], "forbidden");
    }
    let requests = bench.turn([publish(2, "@ada")]);
    let [Request::Log(LogRequest::Publish(publish))] = &requests[..] else {
        panic!("{requests:?}")
    };
    assert_eq!(
        publish.publish.publication.user.as_ref().unwrap().as_str(),
        "bob"
    );
}

#[test]
fn a_session_never_becomes_another_user() {
    let mut bench = secured();
    let expires = bench.expires_in(60);
    bench.signed_in(1, &holder("ada", "a.*", expires), 0);
    bench.turn([identified(1, holder("bob", "*", expires))]);
    assert_eq!(bench.received(1)[0]["code"], "forbidden");
    bench.turn([join(1, "b.1")]);
    assert_eq!(
        bench.received(1)[0]["code"],
        "forbidden",
        "it has none of the other's rights"
    );
}

#[test]
fn newer_token_replaces_the_rights_and_ends_forbidden_memberships() {
    let mut bench = secured();
    let first = holder("ada", "a.*", bench.expires_in(60));
    bench.signed_in(1, &first, 0);
    for room in ["a.1", "public.1"] {
        bench.dispatcher.turn.settings.max_rooms += 1;
        bench.turn([join(1, room)]);
        let requests = bench.turn([following(room)]);
        let ticket = read_ticket(&requests);
        bench.turn([page(ticket, 0, 1, vec![])]);
    }
    bench.received(1);
    let second = holder("ada", "b.*", bench.expires_in(120));
    let requests = bench.turn([identified(1, second)]);
    let [Request::Log(LogRequest::Unfollow(room))] = &requests[..] else {
        panic!("{requests:?}")
    };
    assert_eq!(room.as_str(), "a.1");
    let received = bench.received(1);
    assert_eq!(
        (&received[0]["id"], &received[0]["expires"]),
        (&json!(9), &json!(120))
    );
    assert_eq!(
        (
            &received[1]["type"],
            &received[1]["room"],
            &received[1]["code"]
        ),
        (&json!("removed"), &json!("a.1"), &json!("forbidden"))
    );
    assert_eq!(received.len(), 2, "{received:?}");
    bench.turn([
        message("a.1", 1, "no longer"),
        message("public.1", 1, "still"),
        message("@ada", 1, "too"),
    ]);
    assert_eq!(bench.received(1).len(), 2);
    bench.turn([join(1, "a.1")]);
    assert_eq!(bench.received(1)[0]["code"], "forbidden");
}

#[test]
fn expired_token_ends_its_session_unless_it_was_renewed() {
    let mut bench = secured();
    bench.dispatcher.turn.settings.max_rooms = 10;
    let expires = bench.expires_in(60);
    for (session, user) in [(1, "ada"), (2, "bob"), (3, "eve")] {
        bench.signed_in(session, &holder(user, "*", expires), 0);
    }
    bench.turn([identified(2, holder("bob", "*", expires + 60_000))]);
    bench.turn([Event::Closed {
        session: SessionId(3),
        close_reason: None,
    }]);
    bench.received(2);
    bench.now.unix_ms = expires + 3_999;
    bench.turn([Event::Tick]);
    assert_eq!(bench.closed(1), None);
    bench.now.unix_ms = expires + 4_000;
    bench.turn([Event::Tick]);
    assert_eq!((bench.closed(1), bench.closed(2)), (Some(3006), None));
    bench.now.unix_ms += 60_000;
    bench.turn([Event::Tick]);
    assert_eq!(bench.closed(2), Some(3006));
    assert!(bench.dispatcher.expiring.is_empty());
}

#[test]
fn personal_room_does_not_count_towards_the_room_limits() {
    let mut bench = secured();
    bench.dispatcher.turn.settings.rooms_per_session = 1;
    bench.dispatcher.turn.settings.max_rooms = 1;
    bench.signed_in(1, &holder("ada", "*", bench.expires_in(60)), 0);
    bench.signed_in(2, &holder("bob", "*", bench.expires_in(60)), 0);
    assert!(!bench.turn([join(1, "a")]).is_empty());
    for session in [1, 2] {
        bench.turn([join(session, "b")]);
        let refused = bench.received(session);
        assert_eq!(refused[0]["code"], "limit", "{refused:?}");
    }
    let (session, close_reason) = (SessionId(2), None);
    bench.turn([Event::Closed {
        session,
        close_reason,
    }]);
    assert_eq!(bench.dispatcher.personal, 1);
}
