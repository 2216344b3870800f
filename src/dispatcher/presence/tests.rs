//! Presence, turn by turn: announcements and their times, the pushes that members receive, and the
//! replies to members queries.

use super::*;
use crate::broker::redis::wire::change::decode_info;
use crate::broker::{
    Change, Info, LogRequest, Member, MemberPage, MembersQuery, MembersRequest, PresenceRequest,
    SetPresence,
};
use crate::model::id::UserName;
use crate::model::identity::Identity;
use crate::model::member::MemberIdentity;

const SECOND: Duration = Duration::from_secs(1);

fn auth(session: u64, user: &str) -> Event {
    identified(session, user, None)
}

fn identified(session: u64, user: &str, info: Option<Info>) -> Event {
    let user = UserName::new(user).unwrap();
    Event::Identified {
        session: SessionId(session),
        id: None,
        identity: Arc::new(Identity::unverified(user, info)),
    }
}

fn members(session: u64, room: &str, after: Option<&str>) -> Event {
    let room = name(room);
    let after = after.map(|after| UserName::new(after).unwrap());
    let limit = 2;
    command(
        session,
        Command::Members(MembersQuery { room, after, limit }),
    )
}

/// A join whose membership has a user of its own.
fn join_as(session: u64, room: &str, user: &str, info: &str) -> Event {
    let identity = MemberIdentity {
        user: UserName::new(user).unwrap(),
        info: decode_info(info.as_bytes()).unwrap(),
    };
    command(
        session,
        Command::Join {
            room: name(room),
            since: None,
            identity: Some(Box::new(identity)),
        },
    )
}

fn closed(session: u64) -> Event {
    let session = SessionId(session);
    let close_reason = None;
    Event::Closed {
        session,
        close_reason,
    }
}

fn changed(room: &str, from: u64, user: &str, was: u32, connections: u32) -> Event {
    let change = Change {
        from,
        version: from + 1,
        user: UserName::new(user).unwrap(),
        was,
        connections,
        info: None,
    };
    let room = name(room);
    Event::Broker(BrokerEvent::Changed { room, change })
}

fn member_page(ticket: Ticket, version: u64, users: &[&str]) -> Event {
    let member = |user: &&str| Member {
        user: UserName::new(user).unwrap(),
        connections: 1,
        info: None,
    };
    let members: Vec<Member> = users.iter().map(member).collect();
    let page = MemberPage {
        version,
        count: members.len() as u64,
        members,
        anonymous: 3,
        more: false,
    };
    let result = Ok(page);
    Event::Broker(BrokerEvent::MemberPage { ticket, result })
}

fn one(room: &str, user: &str, connections: u32) -> (String, String, u32) {
    (room.into(), user.into(), connections)
}

impl Bench {
    /// The announcements since the last call: room, user, connections.
    fn announced(&mut self) -> Vec<(String, String, u32)> {
        let mut announced = Vec::new();
        self.presence.retain(|request| {
            let Request::Presence(PresenceRequest::SetPresence(change)) = request else {
                return true;
            };
            let user = change.user.as_ref();
            let user = user.map_or(String::new(), UserName::to_string);
            announced.push((change.room.to_string(), user, change.connections));
            false
        });
        announced
    }

    /// The list reads since the last call.
    fn list_reads(&mut self) -> Vec<MembersRequest> {
        let mut reads = Vec::new();
        self.presence.retain(|request| match request {
            Request::Presence(PresenceRequest::Members(members)) => {
                reads.push(members.clone());
                false
            }
            _ => true,
        });
        reads
    }

    /// Opens a live member of a room whose list has been read.
    fn listed(&mut self, session: u64, room: &str, version: u64, users: &[&str]) {
        self.member(session, room, 0);
        let reads = self.list_reads();
        self.turn([member_page(reads[0].ticket, version, users)]);
        assert!(self.received(session).is_empty());
        self.announced();
    }

    fn pass(&mut self, time: Duration) {
        self.now.instant += time;
        self.turn([Event::Tick]);
    }

    /// As many turns as the events need.
    fn turns(&mut self, events: impl IntoIterator<Item = Event>) {
        let events: Vec<Event> = events.into_iter().collect();
        let mut events = events.into_iter();
        while events.len() > 0 {
            self.turn(events.by_ref());
        }
    }
}

#[test]
fn presence_begins_when_the_join_is_answered() {
    let mut bench = Bench::new();
    bench.open(1);
    bench.turn([auth(1, "ada"), join(1, "lobby")]);
    assert_eq!(bench.announced(), []);
    let ticket = read_ticket(&bench.turn([following("lobby")]));
    bench.turn([page(ticket, 5, 6, vec![])]);
    assert_eq!(bench.announced(), [one("lobby", "ada", 1)]);
    // A refused join is not announced.
    bench.turn([join(1, "other")]);
    bench.pass(6 * SECOND);
    bench.pass(6 * SECOND);
    assert_eq!(bench.announced(), []);
}

#[test]
fn membership_with_an_identity_of_its_own_is_present_as_that() {
    let mut bench = Bench::new();
    bench.member(9, "lobby", 0);
    bench.announced();
    bench.open(1);
    bench.turn([join_as(1, "lobby", "guest", r#"{"a":1}"#)]);
    assert_eq!(bench.announced(), [one("lobby", "guest", 1)]);
    // Signing in changes memberships without an identity alone.
    bench.turn([auth(1, "ada")]);
    assert_eq!(bench.announced(), []);
    bench.turn([join_as(1, "lobby", "host", "")]);
    assert_eq!(
        bench.announced(),
        [one("lobby", "guest", 0), one("lobby", "host", 1)]
    );
    bench.turn([leave(1, "lobby")]);
    bench.pass(6 * SECOND);
    assert_eq!(bench.announced(), [one("lobby", "host", 0)]);
}

#[test]
fn presence_survives_a_reconnect_within_the_grace() {
    let mut bench = Bench::new();
    bench.member(1, "lobby", 0);
    assert_eq!(bench.announced(), [one("lobby", "", 1)]);
    let requests = bench.turn([closed(1)]);
    assert!(matches!(
        requests[..],
        [Request::Log(LogRequest::Unfollow(_))]
    ));
    bench.pass(4 * SECOND);
    bench.member(2, "lobby", 0);
    bench.pass(6 * SECOND);
    assert_eq!(bench.announced(), []);
    bench.turn([closed(2)]);
    bench.pass(6 * SECOND);
    assert_eq!(bench.announced(), [one("lobby", "", 0)]);
}

#[test]
fn presence_counts_devices_per_user_and_moves_them_with_a_new_identity() {
    let mut bench = Bench::new();
    bench.member(1, "lobby", 0);
    bench.member(2, "lobby", 0);
    assert_eq!(
        bench.announced(),
        [one("lobby", "", 1), one("lobby", "", 2)]
    );
    bench.turn([auth(1, "ada")]);
    assert_eq!(
        bench.announced(),
        [one("lobby", "", 1), one("lobby", "ada", 1)]
    );
    bench.turn([auth(2, "ada"), join(2, "lobby")]);
    assert_eq!(
        bench.announced(),
        [one("lobby", "", 0), one("lobby", "ada", 2)]
    );
    bench.turn([leave(1, "lobby")]);
    assert_eq!(bench.announced(), [one("lobby", "ada", 1)]);
}

#[test]
fn presence_info_is_announced_once() {
    let mut bench = Bench::new();
    bench.member(1, "lobby", 0);
    let info: Info = RawValue::from_string("{\"name\":\"Ada\"}".into())
        .unwrap()
        .into();
    for _ in 0..2 {
        bench.turn([identified(1, "ada", Some(info.clone()))]);
    }
    let named = |request: &Request| match request {
        Request::Presence(PresenceRequest::SetPresence(change)) if change.user.is_some() => {
            Some(change.clone())
        }
        _ => None,
    };
    let changes: Vec<SetPresence> = bench.presence.iter().filter_map(named).collect();
    assert_eq!(changes.len(), 1, "an equal info is not announced twice");
    assert_eq!(changes[0].info.as_ref().unwrap().get(), info.get());
}

#[test]
fn presence_events_and_messages_share_one_buffer_in_order() {
    let mut bench = Bench::new();
    bench.listed(1, "lobby", 7, &["ada"]);
    bench.member(2, "lobby", 0);
    bench.turn([
        message("lobby", 1, "before"),
        changed("lobby", 7, "bob", 0, 1),
        changed("lobby", 8, "bob", 1, 2),
        message("lobby", 2, "after"),
        changed("lobby", 9, "ada", 1, 0),
    ]);
    let (ada, bob) = (bench.chunks(1), bench.chunks(2));
    assert_eq!((ada.len(), ada[0].as_ptr()), (1, bob[0].as_ptr()));
    let received = messages(&ada[0]);
    let joined = json!({"type": "joined", "room": "lobby", "user": "bob", "version": 8});
    let left = json!({"type": "left", "room": "lobby", "user": "ada", "version": 10});
    assert_eq!((&received[1], &received[3]), (&joined, &left));
    assert_eq!(
        (&received[0]["offset"], &received[2]["offset"]),
        (&json!(1), &json!(2))
    );
    assert_eq!(received.len(), 4, "a second device sends no event");
}

#[test]
fn presence_events_reach_members_behind_but_not_waiting_joins() {
    let mut bench = Bench::new();
    bench.dispatcher.turn.settings.recent_memory = 0;
    bench.listed(1, "lobby", 7, &[]);
    bench.turn((1..=5).map(|n| message("lobby", n, "old")));
    bench.open(2);
    let ticket = read_ticket(&bench.turn([rejoin(2, "lobby", EPOCH, 0)]));
    bench.turn([changed("lobby", 7, "bob", 0, 1)]);
    assert!(bench.received(2).is_empty(), "it is not in the room yet");
    // It receives a part of the missed messages, and stays behind.
    bench.turn([page(ticket, 5, 1, vec![1, 2])]);
    bench.turn([changed("lobby", 8, "cy", 0, 1)]);
    let received = bench.received(2);
    assert_eq!(received[0]["recovered"], true, "{received:?}");
    assert_eq!(received.last().unwrap()["user"], "cy", "{received:?}");
}

#[test]
fn members_query_is_answered_from_the_list_in_pages() {
    let mut bench = Bench::new();
    bench.listed(1, "lobby", 7, &["ada", "bob", "cy"]);
    bench.turn([members(1, "lobby", None)]);
    let reads = bench.list_reads();
    assert_eq!(reads[0].query.limit, 0, "only the counts are read");
    bench.turn([member_page(reads[0].ticket, 7, &[])]);
    let listed = json!([{"user": "ada", "connections": 1}, {"user": "bob", "connections": 1}]);
    assert_eq!(
        bench.received(1),
        [
            json!({"type": "ok", "id": 1, "room": "lobby", "version": 7, "members": listed,
            "count": 3, "anonymous": 3, "more": true})
        ]
    );
    bench.turn([
        changed("lobby", 7, "dot", 0, 1),
        members(1, "lobby", Some("bob")),
    ]);
    assert!(bench.list_reads().is_empty());
    let received = bench.received(1);
    assert_eq!(received[0]["type"], "joined", "sent before the reply");
    assert_eq!(
        (&received[1]["version"], &received[1]["more"]),
        (&json!(8), &json!(false))
    );
    assert_eq!(received[1]["members"][1]["user"], "dot");
}

#[test]
fn members_query_needs_the_right_but_no_membership() {
    let mut bench = Bench::new();
    bench.listed(1, "lobby", 7, &["ada"]);
    bench.open(2);
    bench.turn([members(2, "lobby", None)]);
    let ticket = bench.list_reads()[0].ticket;
    bench.turn([member_page(ticket, 8, &["ada", "bob"])]);
    assert_eq!(bench.received(2)[0]["count"], 2, "the broker has answered");
    bench.turn([members(2, "@ada", None)]);
    assert_eq!(bench.received(2)[0]["code"], "forbidden");
    bench.dispatcher.turn.settings.rights.open = false;
    bench.turn([members(1, "lobby", None)]);
    assert_eq!(bench.received(1)[0]["code"], "forbidden");
    assert!(bench.list_reads().is_empty());
}

#[test]
fn members_queries_share_one_read_and_its_failure() {
    let mut bench = Bench::new();
    bench.member(1, "lobby", 0);
    bench.member(2, "lobby", 0);
    bench.turn([members(1, "lobby", None), members(2, "lobby", None)]);
    let reads = bench.list_reads();
    assert_eq!(reads.len(), 1, "the room's own read");
    let ticket = reads[0].ticket;
    let result = Err(Refused::Unavailable);
    bench.turn([Event::Broker(BrokerEvent::MemberPage { ticket, result })]);
    for session in [1, 2] {
        assert_eq!(bench.received(session)[0]["code"], "unavailable");
    }
    bench.turn([Event::Tick]);
    let ticket = bench.list_reads()[0].ticket;
    bench.turn([members(1, "lobby", None), member_page(ticket, 1, &["ada"])]);
    assert_eq!(bench.received(1)[0]["count"], 1);
    assert!(bench.dispatcher.load().is_idle());
}

#[test]
fn members_query_is_answered_at_its_deadline_without_the_broker() {
    let mut bench = Bench::new();
    bench.listed(1, "lobby", 7, &["ada"]);
    bench.member(2, "other", 0);
    bench.turn([members(1, "lobby", None), members(2, "other", None)]);
    bench.pass(6 * SECOND);
    assert_eq!(bench.received(1)[0]["count"], 1);
    assert_eq!(bench.received(2)[0]["code"], "unavailable");
    bench.turn([members(2, "other", None), leave(2, "other")]);
    assert_eq!(
        bench.received(2)[0]["code"],
        "unavailable",
        "the room is gone"
    );
    assert_eq!(bench.dispatcher.load().commands, 0);
}

#[test]
fn presence_events_off_sends_no_events_and_queries_the_broker() {
    let mut bench = Bench::new();
    let rooms = crate::model::pattern::Pattern::new("big*").unwrap();
    let off = crate::model::pattern::RoomSwitch { rooms, on: false };
    bench.dispatcher.turn.settings.presence.events.0.push(off);
    bench.member(1, "big", 0);
    assert!(bench.list_reads().is_empty(), "no list is read");
    assert_eq!(bench.announced(), [one("big", "", 1)], "but it counts");
    bench.turn([
        changed("big", 3, "bob", 0, 1),
        members(1, "big", Some("ada")),
    ]);
    assert!(bench.received(1).is_empty());
    let read = bench.list_reads().remove(0);
    assert_eq!(
        (read.query.limit, read.query.after.unwrap().as_str()),
        (2, "ada")
    );
    bench.turn([member_page(read.ticket, 4, &["bob"])]);
    assert_eq!(bench.received(1)[0]["members"][0]["user"], "bob");
}

#[test]
fn personal_room_has_presence_but_no_events() {
    let mut bench = Bench::new();
    bench.open(1);
    bench.turn([auth(1, "ada")]);
    let ticket = read_ticket(&bench.turn([following("@ada")]));
    bench.turn([page(ticket, 0, 1, vec![]), changed("@ada", 0, "ada", 0, 1)]);
    assert_eq!(bench.received(1).len(), 1, "the answer to auth");
    assert!(bench.list_reads().is_empty(), "no list is read");
    assert_eq!(bench.announced(), [one("@ada", "ada", 1)]);
}

#[test]
fn member_list_beyond_the_memory_still_sends_changes() {
    let mut bench = Bench::new();
    bench.dispatcher.turn.settings.presence.memory = 200;
    bench.member(1, "lobby", 0);
    let ticket = bench.list_reads()[0].ticket;
    bench.turn([
        members(1, "lobby", None),
        member_page(ticket, 7, &["ada", "bob"]),
    ]);
    let reads = bench.list_reads();
    let limits: Vec<usize> = reads.iter().map(|read| read.query.limit).collect();
    assert_eq!(limits, [2], "the client's query is sent to the broker");
    bench.turn([member_page(reads[0].ticket, 7, &["ada", "bob"])]);
    assert_eq!(bench.received(1)[0]["count"], 2);
    bench.turn([
        changed("lobby", 7, "cy", 0, 1),
        changed("lobby", 8, "cy", 1, 0),
    ]);
    let received = bench.received(1);
    let kinds: Vec<_> = received
        .iter()
        .map(|publication| &publication["type"])
        .collect();
    assert_eq!(kinds, ["joined", "left"]);
    assert_eq!(bench.dispatcher.turn.member_lists.used, 0);
}

#[test]
fn member_list_is_dropped_beyond_the_memory_and_freed_with_its_room() {
    let mut bench = Bench::new();
    bench.dispatcher.turn.settings.presence.memory = 1000;
    bench.listed(1, "lobby", 0, &[]);
    bench.turn((0..20).map(|n| changed("lobby", n, &format!("u{n}"), 0, 1)));
    assert_eq!(bench.received(1).len(), 20, "one event per join");
    assert_eq!(bench.dispatcher.turn.member_lists.used, 0);
    bench.dispatcher.turn.settings.presence.memory = 1 << 20;
    bench.listed(2, "other", 0, &["ada"]);
    assert!(bench.dispatcher.turn.member_lists.used > 0);
    bench.turn([closed(2)]);
    assert_eq!(bench.dispatcher.turn.member_lists.used, 0);
}

#[test]
fn presence_events_beyond_a_quarter_outbox_become_one_push() {
    let mut bench = Bench::new();
    bench.listed(1, "lobby", 7, &["ada"]);
    bench.turn([following("lobby")]);
    let ticket = bench.list_reads()[0].ticket;
    bench.turn([member_page(ticket, 900, &[])]);
    let ticket = bench.list_reads()[0].ticket;
    let users: Vec<String> = (0..1000).map(|n| format!("user-number-{n}")).collect();
    let users: Vec<&str> = users.iter().map(String::as_str).collect();
    bench.turn([member_page(ticket, 900, &users)]);
    let received = bench.received(1);
    let anew = json!({"type": "members", "room": "lobby", "version": 900});
    assert_eq!(received, [anew]);
}

#[test]
fn member_list_reads_are_bounded() {
    let mut bench = Bench::new();
    bench.dispatcher.turn.settings.max_rooms = 1000;
    bench.dispatcher.turn.settings.rooms_per_session = 1000;
    bench.open(1);
    let rooms: Vec<String> = (0..100).map(|n| format!("r{n}")).collect();
    bench.turn(rooms.iter().map(|room| join(1, room)));
    bench.turn(rooms.iter().map(|room| following(room)));
    let mut reads = bench.list_reads();
    assert_eq!(reads.len(), turn::LIST_READS);
    let mut answered = 0;
    while let Some(read) = reads.pop() {
        answered += 1;
        bench.turn([member_page(read.ticket, 1, &[])]);
        reads.extend(bench.list_reads());
        assert!(reads.len() <= turn::LIST_READS);
    }
    assert_eq!(answered, 100);
}

#[test]
fn member_list_reads_do_not_grow_with_joins_and_leaves() {
    let mut bench = Bench::new();
    bench.open(1);
    for _ in 0..100 {
        bench.turn([join(1, "lobby"), following("lobby")]);
        bench.turn([members(1, "lobby", None), leave(1, "lobby")]);
        bench.chunks(1);
    }
    let turn = &bench.dispatcher.turn;
    assert!(turn.list_reads.due() <= 1 && turn.member_lists.waiting.len() <= 1);
    assert!(turn.list_reads.in_flight() <= turn::LIST_READS);
    assert!(bench.dispatcher.local_presence.in_grace() <= 1);
}

/// How long the presence of this node stays, if it was retired.
fn retired(bench: &Bench) -> Vec<Duration> {
    let requests = bench.presence.iter();
    requests
        .filter_map(|request| match request {
            Request::Presence(PresenceRequest::Retire(time)) => Some(*time),
            _ => None,
        })
        .collect()
}

#[test]
fn drain_retires_presence_for_the_grace_once_the_last_session_is_disconnected() {
    let mut bench = Bench::new();
    bench.silence(1000 * SECOND);
    bench.member(1, "lobby", 0);
    bench.member(2, "lobby", 0);
    // The second waits for the result of a publish, for half the drain at most.
    let waits = Command::Publish(Box::new(publish("lobby", None)));
    bench.turn([command(2, waits)]);
    bench.turn([Event::Drain(600 * SECOND)]);
    for second in 1..300 {
        bench.now.instant += SECOND;
        bench.turn([Event::Tick]);
        assert!(retired(&bench).is_empty(), "a session is open: {second} s");
    }
    bench.now.instant += 2 * SECOND;
    bench.turn([Event::Tick]);
    assert_eq!(retired(&bench), [5 * SECOND]);
    bench.turn([Event::Tick]);
    assert_eq!(retired(&bench), [5 * SECOND], "once");
}

#[test]
fn presence_announces_twenty_thousand_leaves_once_each() {
    const COUNT: u64 = 20_000;
    let mut bench = Bench::new();
    bench.member(0, "lobby", 0);
    for session in 1..=COUNT {
        bench.open(session);
    }
    let come = |session| {
        [
            auth(session, &format!("u{session}")),
            join(session, "lobby"),
        ]
    };
    bench.turns((1..=COUNT).flat_map(come));
    assert_eq!(bench.announced().len() as u64, COUNT + 1);
    bench.turns((0..=COUNT).map(closed));
    assert_eq!(bench.announced(), []);
    bench.pass(6 * SECOND);
    let announced = bench.announced();
    assert_eq!(announced.len() as u64, COUNT + 1);
    assert!(
        announced
            .iter()
            .all(|(_, _, connections)| *connections == 0)
    );
    assert_eq!(bench.dispatcher.local_presence.in_grace(), 0);
}
