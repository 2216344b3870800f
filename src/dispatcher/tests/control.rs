//! What nodes tell each other to do with users: revoked tokens, rooms joined and left from outside, and logs that are lost.

use super::identity::{holder, identified, secured};
use super::*;
use crate::control::{Deed, Order};
use crate::epochs::Ends;
use crate::id::UserName;

const REVOKED: &str = "$control.revoked";

fn ordered(user: &str, deed: Deed, moment: u64) -> Arc<Publication> {
    let user = UserName::new(user).unwrap();
    Arc::new(Order { user, deed }.to_publication(moment))
}

fn heard_order(room: &str, offset: u64, said: Arc<Publication>) -> Event {
    Event::Broker(BrokerEvent::Message {
        room: name(room),
        epoch: Epoch::new(EPOCH),
        offset,
        publication: said,
        heard: Instant::now(),
    })
}

/// A whole log, as a read brings it.
fn log(ticket: Ticket, epoch: u64, said: Vec<Arc<Publication>>) -> Event {
    let (epoch, offset) = (Epoch::new(epoch), said.len() as u64);
    let result = Ok(Page {
        top: Position { epoch, offset },
        first: 1,
        ends: Ends::default(),
        expires_in: std::time::Duration::from_secs(60),
        messages: (1..).zip(said).collect(),
    });
    Event::Broker(BrokerEvent::Page { ticket, result })
}

fn publishes(requests: Vec<Request>) -> Vec<crate::broker::Publish> {
    let publishes = requests.into_iter().filter_map(|request| match request {
        Request::Publish(publish) => Some(publish),
        _ => None,
    });
    publishes.collect()
}

impl Bench {
    /// A node that has not read yet what the others said.
    fn behind() -> Self {
        let mut bench = Bench::new();
        bench.dispatcher.desk.settings.rights.open = false;
        bench.dispatcher.follow_control();
        let follows = bench.turn([]);
        assert!(matches!(
            &follows[..],
            [Request::Follow(_), Request::Follow(_)]
        ));
        bench
    }
}

#[test]
fn a_revocation_ends_the_sessions_with_older_tokens_and_refuses_them_from_then_on() {
    let mut bench = secured();
    let expires = bench.expires_in(60);
    let (old, new) = (
        holder("ada", "*", expires),
        holder("ada", "*", expires + 1_000),
    );
    let mut silent = Identity::clone(&old);
    silent.times.as_mut().unwrap().issued = None;
    bench.signed_in(1, &old, 0);
    bench.signed_in(2, &new, 0);
    bench.signed_in(3, &holder("bob", "*", expires), 0);
    bench.signed_in(4, &Arc::new(silent.clone()), 0);
    // Issued at this very moment is not after it.
    let moment = expires - 60_000;
    bench.turn([heard_order(
        REVOKED,
        1,
        ordered("ada", Deed::Revoke, moment),
    )]);
    let codes = [1, 2, 3, 4].map(|session| bench.closed(session));
    assert_eq!(codes, [Some(3500), None, None, Some(3500)]);
    for (session, identity) in [(5, old), (6, Arc::new(silent))] {
        bench.open(session);
        bench.turn([identified(session, identity)]);
        let reader = &bench.outboxes[&session];
        let Some(Chunk::Frames(frames)) = reader.try_recv() else {
            panic!("no answer");
        };
        assert_eq!(messages(&frames)[0]["code"], "unauthorized");
        assert_eq!(bench.closed(session), Some(3500));
    }
    bench.signed_in(7, &new, 0);
    // An older word about the same user changes nothing.
    bench.turn([heard_order(
        REVOKED,
        2,
        ordered("ada", Deed::Revoke, moment - 9),
    )]);
    assert_eq!(bench.closed(7), None);
}

#[test]
fn nobody_with_a_token_is_let_in_before_the_node_has_read_which_were_revoked() {
    let mut bench = Bench::behind();
    let expires = bench.expires_in(60);
    let ada = holder("ada", "*", expires);
    bench.open(1);
    bench.turn([identified(1, ada.clone())]);
    assert_eq!(bench.heard(1)[0]["code"], "unavailable");
    let requests = bench.turn([following(REVOKED)]);
    let ticket = read_ticket(&requests);
    // The read fails, and is asked again.
    let result = Err(Refused::Unavailable);
    bench.turn([Event::Broker(BrokerEvent::Page { ticket, result })]);
    assert!(!bench.dispatcher.knows_revocations());
    let ticket = read_ticket(&bench.turn([Event::Tick]));
    // More than a page: the first is not the end.
    let said = ordered("ada", Deed::Revoke, expires);
    let top = Position {
        epoch: Epoch::new(EPOCH),
        offset: 2,
    };
    let result = Ok(Page {
        top,
        first: 1,
        ends: Ends::default(),
        expires_in: std::time::Duration::from_secs(60),
        messages: vec![(1, ordered("eve", Deed::Revoke, expires))],
    });
    let requests = bench.turn([Event::Broker(BrokerEvent::Page { ticket, result })]);
    assert!(!bench.dispatcher.knows_revocations());
    let result = Ok(Page {
        top,
        first: 1,
        ends: Ends::default(),
        expires_in: std::time::Duration::from_secs(60),
        messages: vec![(2, said)],
    });
    let ticket = read_ticket(&requests);
    bench.turn([Event::Broker(BrokerEvent::Page { ticket, result })]);
    assert!(bench.dispatcher.knows_revocations());
    bench.turn([identified(1, ada)]);
    assert_eq!(bench.closed(1), Some(3500));
    bench.signed_in(2, &holder("bob", "*", expires), 0);
}

#[test]
fn what_was_revoked_is_said_again_when_the_log_is_lost_and_counts_all_the_while() {
    let mut bench = secured();
    let expires = bench.expires_in(60);
    let moment = bench.now.unix_ms;
    for (offset, user) in (1..).zip(["ada", "bob"]) {
        let said = ordered(user, Deed::Revoke, moment + offset);
        bench.turn([heard_order(REVOKED, offset, said)]);
    }
    let ticket = read_ticket(&bench.turn([following(REVOKED)]));
    let again = publishes(bench.turn([log(ticket, EPOCH + 1, vec![])]));
    let said: Vec<_> = again
        .iter()
        .map(|publish| (publish.publication.time, publish.room.as_str()))
        .collect();
    assert_eq!(said, [(moment + 1, REVOKED), (moment + 2, REVOKED)]);
    let key = again[0].key.as_ref().unwrap();
    assert_eq!(key.publisher.as_str(), "ada");
    let epoch = Epoch::new(EPOCH + 1);
    assert_eq!(*key.key, *format!("{}-{epoch}", moment + 1));
    bench.open(1);
    bench.turn([identified(1, holder("ada", "*", expires))]);
    assert_eq!(bench.closed(1), Some(3500));
    // What is refused is said once more, what is safe is not.
    let published = |ticket, result| Event::Broker(BrokerEvent::Published { ticket, result });
    let position = Position { epoch, offset: 1 };
    bench.turn([
        published(again[0].ticket, Ok(position)),
        published(again[1].ticket, Err(Refused::Unavailable)),
    ]);
    let once_more = publishes(bench.turn([Event::Tick]));
    assert_eq!(once_more.len(), 1);
    assert_eq!(once_more[0].key, again[1].key);
    bench.turn([published(once_more[0].ticket, Ok(position))]);
    assert!(publishes(bench.turn([Event::Tick])).is_empty());
    let load = bench.dispatcher.load();
    assert_eq!((load.commands, load.reads), (0, 0));
}

#[test]
fn orders_concern_the_users_sessions_alone_and_those_said_before_are_past() {
    let mut bench = secured();
    let expires = bench.expires_in(60);
    for (session, user) in [(1, "ada"), (2, "ada"), (3, "bob")] {
        bench.signed_in(session, &holder(user, "*", expires), 0);
    }
    // Where the log stands is all that the first look tells.
    let ticket = read_ticket(&bench.turn([following("$control")]));
    bench.turn([log(
        ticket,
        EPOCH,
        vec![ordered("ada", Deed::Disconnect, 1)],
    )]);
    assert_eq!(bench.closed(1), None);
    bench.turn([join(2, "lobby")]);
    let ticket = read_ticket(&bench.turn([following("lobby")]));
    bench.turn([page(ticket, 7, 8, vec![])]);
    bench.heard(2);
    let lobby = || name("lobby");
    bench.turn([heard_order(
        "$control",
        2,
        ordered("ada", Deed::Join(lobby()), 1),
    )]);
    let told = bench.heard(1);
    assert_eq!(
        (
            &told[0]["type"],
            &told[0]["id"],
            &told[0]["room"],
            &told[0]["offset"]
        ),
        (&json!("ok"), &json!(null), &json!("lobby"), &json!(7))
    );
    assert!(bench.heard(2).is_empty(), "it is there already");
    bench.turn([message("lobby", 8, "hi")]);
    assert_eq!((bench.offsets(1), bench.offsets(3)), (vec![8], vec![]));
    bench.turn([heard_order(
        "$control",
        3,
        ordered("ada", Deed::Leave(lobby()), 1),
    )]);
    for session in [1, 2] {
        let heard = bench.heard(session);
        assert_eq!(heard.last().unwrap()["type"], "removed", "{heard:?}");
    }
    bench.turn([heard_order(
        "$control",
        4,
        ordered("ada", Deed::Disconnect, 1),
    )]);
    let codes = [1, 2, 3].map(|session| bench.closed(session));
    assert_eq!(codes, [Some(3007), Some(3007), None]);
    bench.signed_in(4, &holder("ada", "*", expires), 0);
}

#[test]
fn a_hole_among_the_orders_is_read_and_they_are_done_in_their_order() {
    let mut bench = secured();
    bench.signed_in(1, &holder("ada", "*", bench.expires_in(60)), 0);
    let ticket = read_ticket(&bench.turn([following("$control")]));
    bench.turn([log(ticket, EPOCH, vec![])]);
    let leave = ordered("ada", Deed::Leave(name("lobby")), 1);
    let requests = bench.turn([heard_order("$control", 2, leave.clone())]);
    assert!(bench.heard(1).is_empty());
    let ticket = read_ticket(&requests);
    let come = ordered("ada", Deed::Join(name("lobby")), 1);
    let requests = bench.turn([log(ticket, EPOCH, vec![come, leave])]);
    assert!(
        matches!(&requests[..], [Request::Follow(_), Request::Unfollow(_)]),
        "{requests:?}"
    );
    assert_eq!(bench.heard(1)[0]["type"], "removed");
    // And once a minute it is compared, however quiet it is.
    bench.now.instant += Duration::from_secs(61);
    let reads = bench.turn([Event::Tick]);
    let reads = reads
        .iter()
        .filter(|asked| matches!(asked, Request::Read(read) if read.room.is_the_nodes()));
    assert_eq!(reads.count(), 2);
}

#[test]
fn a_session_that_is_in_as_many_rooms_as_it_may_is_not_brought_into_more() {
    let mut bench = secured();
    bench.dispatcher.desk.settings.rooms_per_session = 1;
    bench.signed_in(1, &holder("ada", "*", bench.expires_in(60)), 0);
    bench.turn([join(1, "a")]);
    let ticket = read_ticket(&bench.turn([following("$control")]));
    bench.turn([log(ticket, EPOCH, vec![])]);
    let come = ordered("ada", Deed::Join(name("lobby")), 1);
    assert!(bench.turn([heard_order("$control", 1, come)]).is_empty());
}
