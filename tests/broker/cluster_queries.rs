//! Cluster queries on every broker: the counts of a room, the list of rooms, the connections of a
//! user. Then the same when Redis loses data or holds foreign values.

use std::time::{Duration, Instant};

use switchboard::broker::{
    BrokerEvent, ClusterRequest, Connected, PresenceRequest, Refused, Request, Source,
};
use switchboard::model::cluster_query::{
    ClusterQuery, Connection, ConnectionPage, QueryResult, RoomCount, RoomKind, RoomPage,
};
use switchboard::model::id::{Incarnation, Position, RoomPrefix, SessionId};
use switchboard::model::publication::Sender;

use super::node::{BrokerNode, SHORT_LEASE, World, name};
use super::presence_table::{info, user};
use crate::support::DEADLINE;
use crate::support::redis_server::RedisServer;

over_every_broker! {
    room_count_has_all_connections_and_the_position,
    rooms_are_listed_while_they_have_members,
    rooms_come_in_pages_by_the_order_of_names,
    personal_rooms_have_their_own_list_and_server_rooms_have_none,
    connections_of_a_user_are_listed_from_every_node,
    connections_come_in_pages_and_show_the_newest_info,
    connections_of_an_ended_node_are_no_longer_counted_or_listed,
}

impl BrokerNode {
    fn try_find(&mut self, query: ClusterQuery) -> Result<QueryResult, Refused> {
        let asked = self.ask(|ticket| {
            Request::Presence(PresenceRequest::ClusterQuery(ClusterRequest {
                ticket,
                source: Source::Node,
                query,
            }))
        });
        self.wait("finding", |event| match event {
            BrokerEvent::QueryResult { ticket, result } if *ticket == asked => Some(result.clone()),
            _ => None,
        })
    }

    fn count(&mut self, room: &str) -> (RoomCount, Option<Position>) {
        match self.try_find(ClusterQuery::Room(name(room))) {
            Ok(QueryResult::Room(count, position)) => (count, position),
            other => panic!("{other:?}"),
        }
    }

    fn page(&mut self, prefix: &str, after: &str, limit: usize) -> RoomPage {
        self.try_page(prefix, after, limit)
            .expect("a page of rooms")
    }

    fn try_page(&mut self, prefix: &str, after: &str, limit: usize) -> Result<RoomPage, Refused> {
        let query = ClusterQuery::Rooms {
            kind: RoomKind::beginning_with(prefix),
            prefix: (!prefix.is_empty()).then(|| RoomPrefix::new(prefix).expect("a prefix")),
            after: (!after.is_empty()).then(|| name(after)),
            limit,
        };
        match self.try_find(query)? {
            QueryResult::Rooms(page) => Ok(page),
            other => panic!("{other:?}"),
        }
    }

    fn connections(&mut self, of: &str, after: Option<Sender>, limit: usize) -> ConnectionPage {
        self.try_connections(of, after, limit)
            .expect("a page of connections")
    }

    fn try_connections(
        &mut self,
        of: &str,
        after: Option<Sender>,
        limit: usize,
    ) -> Result<ConnectionPage, Refused> {
        let user = user(of);
        match self.try_find(ClusterQuery::Connections { user, after, limit })? {
            QueryResult::Connections(page) => Ok(page),
            other => panic!("{other:?}"),
        }
    }

    pub fn connected(&self, of: &str, session: Sender, shown: &str, live: bool) {
        let connection = Connection {
            session,
            node: "n1".into(),
            info: info(shown),
        };
        let user = user(of);
        assert!(
            self.broker
                .send(Request::Presence(PresenceRequest::Connected(Connected {
                    user,
                    connection,
                    live,
                })))
        );
    }

    pub fn until_rooms(&mut self, prefix: &str, wanted: &str) {
        // While the list is not one of ours, a query is refused: the next write replaces it.
        until(wanted, || match self.try_page(prefix, "", 1000) {
            Ok(page) => rooms(&page),
            Err(why) => why.to_string(),
        });
    }

    pub fn until_connections(&mut self, of: &str, wanted: &str) {
        until(wanted, || match self.try_connections(of, None, 1000) {
            Ok(page) => named(&page),
            Err(why) => why.to_string(),
        });
    }

    fn until_count(&mut self, room: &str, wanted: &str) {
        until(wanted, || counted(&self.count(room).0));
    }
}

fn until(wanted: &str, mut is: impl FnMut() -> String) {
    let start = Instant::now();
    loop {
        let is = is();
        if is == wanted {
            return;
        }
        assert!(start.elapsed() < DEADLINE, "{is:?}, not {wanted:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// As `lobby 3=2+1`: connections in all, users, connections without a name.
fn counted(count: &RoomCount) -> String {
    let RoomCount {
        room,
        connections,
        users,
        anonymous,
    } = count;
    format!("{room} {connections}={users}+{anonymous}")
}

fn rooms(page: &RoomPage) -> String {
    let words: Vec<_> = page.rooms.iter().map(counted).collect();
    words.join(", ")
}

fn named(page: &ConnectionPage) -> String {
    let names: Vec<_> = page
        .connections
        .iter()
        .map(|it| it.session.to_string())
        .collect();
    names.join(" ")
}

pub fn session(run: u64, number: u64) -> Sender {
    Sender {
        incarnation: Incarnation(run),
        session: SessionId(number),
    }
}

fn room_count_has_all_connections_and_the_position(world: World) {
    let (mut a, mut b) = (world.node(), world.node());
    let (count, position) = a.count("lobby");
    assert_eq!((counted(&count).as_str(), position), ("lobby 0=0+0", None));
    b.follow("lobby");
    let top = b.top("lobby");
    assert_eq!(a.count("lobby").1, Some(top), "before the first message");
    a.here("lobby", "ada", 2);
    a.here("lobby", "", 3);
    b.here("lobby", "ada", 1);
    b.here("lobby", "bob", 1);
    a.until_count("lobby", "lobby 7=2+3");
    b.until_count("lobby", "lobby 7=2+3");
    let at = a.publish("lobby", "hello");
    for node in [&mut a, &mut b] {
        assert_eq!(node.count("lobby").1, Some(at));
    }
    a.here("lobby", "ada", 1);
    a.here("lobby", "", 0);
    a.until_count("lobby", "lobby 3=2+0");
    b.here("lobby", "ada", 0);
    b.here("lobby", "bob", 0);
    a.here("lobby", "ada", 0);
    a.until_count("lobby", "lobby 0=0+0");
    a.here("lobby", "cy", 1);
    a.until_count("lobby", "lobby 1=1+0");
}

fn rooms_are_listed_while_they_have_members(world: World) {
    let (mut a, mut b) = (world.node(), world.node());
    assert_eq!(a.page("", "", 1000), RoomPage::default());
    a.here("lobby", "ada", 1);
    b.here("lobby", "bob", 2);
    b.here("tea", "", 1);
    for node in [&mut a, &mut b] {
        node.until_rooms("", "lobby 3=2+0, tea 1=0+1");
    }
    a.publish("silent", "no member");
    a.here("lobby", "ada", 0);
    b.until_rooms("", "lobby 2=1+0, tea 1=0+1");
    b.here("tea", "", 0);
    a.until_rooms("", "lobby 2=1+0");
    b.here("lobby", "bob", 0);
    for node in [&mut a, &mut b] {
        node.until_rooms("", "");
    }
    a.here("lobby", "ada", 1);
    b.until_rooms("", "lobby 1=1+0");
}

fn rooms_come_in_pages_by_the_order_of_names(world: World) {
    let mut node = world.node();
    for room in ["b", "a.1", "a", "a-1", "B", "a.2", "a_", "a.", "c"] {
        node.here(room, "ada", 1);
    }
    let names = |page: &RoomPage| {
        let names: Vec<_> = page.rooms.iter().map(|it| it.room.to_string()).collect();
        (names.join(" "), page.more)
    };
    until("B a a-1 a. a.1 a.2 a_ b c", || {
        names(&node.page("", "", 1000)).0
    });
    for (prefix, after, limit, wanted, more) in [
        ("", "", 4, "B a a-1 a.", true),
        ("", "a.", 4, "a.1 a.2 a_ b", true),
        ("", "b", 4, "c", false),
        ("", "b", 1, "c", false),
        ("", "a.11", 1, "a.2", true),
        ("a.", "", 9, "a. a.1 a.2", false),
        ("a.", "", 2, "a. a.1", true),
        ("a.", "a.1", 2, "a.2", false),
        ("a.", "A", 1, "a.", true),
        ("a.", "b", 9, "", false),
        ("c", "c", 9, "", false),
        ("d", "", 9, "", false),
    ] {
        let page = node.page(prefix, after, limit);
        let wanted = (wanted.to_owned(), more);
        assert_eq!(names(&page), wanted, "{prefix} {after} {limit}");
    }
}

fn personal_rooms_have_their_own_list_and_server_rooms_have_none(world: World) {
    let mut node = world.node();
    for room in ["lobby", "@ada", "@bob", "$nodes", "0"] {
        node.here(room, "ada", 1);
    }
    node.until_rooms("@", "@ada 1=1+0, @bob 1=1+0");
    node.until_rooms("@b", "@bob 1=1+0");
    node.until_rooms("", "0 1=1+0, lobby 1=1+0");
    assert_eq!(rooms(&node.page("", "0", 9)), "lobby 1=1+0");
}

fn connections_of_a_user_are_listed_from_every_node(world: World) {
    let (mut a, mut b) = (world.node(), world.node());
    let (phone, laptop) = (session(0xa, 1), session(0xb, 1));
    a.here("@ada", "ada", 1);
    a.connected("ada", phone, "", true);
    b.here("@ada", "ada", 1);
    b.connected("ada", laptop, r#"{"name":"Ada"}"#, true);
    for node in [&mut a, &mut b] {
        node.until_connections("ada", &format!("{phone} {laptop}"));
        let page = node.connections("ada", None, 1000);
        assert_eq!((page.count, page.more), (2, false));
        let [first, second] = &page.connections[..] else {
            panic!("{page:?}");
        };
        assert!(first.node == "n1" && first.info.is_none(), "{first:?}");
        let shown = second.info.as_ref().map(|it| it.get());
        assert_eq!(shown, Some(r#"{"name":"Ada"}"#));
        // They are no members.
        node.until_members("@ada", "ada:2");
        node.until_count("@ada", "@ada 2=1+0");
        assert_eq!(node.connections("bob", None, 9).count, 0);
    }
    // The user is counted until the grace period ends.
    a.connected("ada", phone, "", false);
    b.until_connections("ada", &laptop.to_string());
    b.connected("ada", laptop, "", false);
    a.until_connections("ada", "");
    assert_eq!(counted(&a.count("@ada").0), "@ada 2=1+0");
    a.here("@ada", "ada", 0);
    b.here("@ada", "ada", 0);
    a.until_rooms("@", "");
}

fn connections_come_in_pages_and_show_the_newest_info(world: World) {
    let mut node = world.node();
    node.here("@ada", "ada", 12);
    for number in 1..=12 {
        node.connected("ada", session(1, number), "", true);
    }
    node.connected("ada", session(1, 7), r#"{"n":2}"#, true);
    let find = |node: &mut BrokerNode| node.connections("ada", Some(session(1, 6)), 2);
    until("000000000000000 7 {\"n\":2}", || {
        let page = find(&mut node);
        let first = page.connections.first();
        first.map_or_else(String::new, |it| {
            let info = it.info.as_ref().map_or("", |info| info.get());
            format!("000000000000000 {} {info}", it.session.session)
        })
    });
    let mut numbers = Vec::new();
    let mut after = None;
    loop {
        let page = node.connections("ada", after, 5);
        assert_eq!(page.count, 12);
        numbers.extend(page.connections.iter().map(|it| it.session.session.0));
        after = page.connections.last().map(|it| it.session);
        if !page.more {
            break;
        }
    }
    // Ordered by their text form, not by number.
    assert_eq!(numbers, [1, 10, 11, 12, 2, 3, 4, 5, 6, 7, 8, 9]);
}

fn connections_of_an_ended_node_are_no_longer_counted_or_listed(world: World) {
    let (a, mut b) = (world.node(), world.node());
    let (gone, stays) = (session(0xa, 1), session(0xb, 1));
    for (node, session) in [(&a, gone), (&b, stays)] {
        node.here("@ada", "ada", 1);
        node.connected("ada", session, "", true);
        node.here("lobby", "", 2);
    }
    a.here("tea", "bob", 1);
    b.until_rooms("", "lobby 4=0+4, tea 1=1+0");
    b.until_connections("ada", &format!("{gone} {stays}"));
    // The other node removes no member before this.
    std::thread::sleep(SHORT_LEASE / 2);
    drop(a);
    b.until_rooms("", "lobby 2=0+2");
    b.until_connections("ada", &stays.to_string());
    b.until_count("@ada", "@ada 1=1+0");
    assert_eq!(b.connections("ada", None, 9).count, 1);
}

/// Two nodes, each with one member and one connection.
fn scene(server: &RedisServer) -> (BrokerNode, BrokerNode) {
    let (mut a, b) = (BrokerNode::on(server), BrokerNode::on(server));
    for (node, run) in [(&a, 0xa), (&b, 0xb)] {
        node.here("lobby", "ada", 1);
        node.here("@ada", "ada", 1);
        node.connected("ada", session(run, 1), "", true);
    }
    b.here("tea", "", 1);
    full(&mut a);
    (a, b)
}

fn full(node: &mut BrokerNode) {
    node.until_rooms("", "lobby 2=1+0, tea 1=0+1");
    node.until_rooms("@", "@ada 2=1+0");
    let both = format!("{} {}", session(0xa, 1), session(0xb, 1));
    node.until_connections("ada", &both);
}

#[test]
fn emptied_redis_is_queried_only_after_it_is_filled_again() {
    let mut server = RedisServer::start();
    let (mut a, mut b) = scene(&server);
    server.kill();
    server.run();
    for node in [&mut a, &mut b] {
        // Every answer is complete: the query waits until the data are filled again.
        let answer = node.try_find(ClusterQuery::Rooms {
            kind: RoomKind::Chosen,
            prefix: None,
            after: None,
            limit: 9,
        });
        if let Ok(QueryResult::Rooms(page)) = answer {
            assert_eq!(rooms(&page), "lobby 2=1+0, tea 1=0+1");
        }
        full(node);
    }
}

#[test]
fn redis_outage_is_reported_as_unavailable_in_time() {
    let mut server = RedisServer::start();
    let (mut a, _b) = scene(&server);
    server.kill();
    let answer = a.try_find(ClusterQuery::Room(name("lobby")));
    assert_eq!(answer.err(), Some(Refused::Unavailable));
}

#[test]
fn foreign_values_in_the_lists_spoil_no_answer_and_are_repaired() {
    let server = RedisServer::start();
    let (mut a, b) = scene(&server);
    server.query::<()>(&["DEL", "sb:rooms", "sb:{@ada}:live"]);
    server.query::<()>(&["SET", "sb:rooms", "junk"]);
    server.query::<()>(&["SET", "sb:{@ada}:live", "junk"]);
    server.query::<()>(&["HSET", "sb:{lobby}:here", "@connections", "junk"]);
    server.query::<()>(&["HSET", "sb:{lobby}:here", "ada", "junk"]);
    for node in [&a, &b] {
        node.here("lobby", "bob", 1);
        node.here("tea", "cy", 1);
        node.here("lobby", "ada", 2);
        node.connected("ada", session(0xc, 1), r#"{"n":1}"#, true);
    }
    a.until_rooms("", "lobby 6=2+0, tea 3=1+1");
    server.query::<()>(&["ZADD", "sb:rooms", "0", "no room", "0", "none"]);
    server.query::<()>(&["SET", "sb:{none}:here", "junk"]);
    let listed = "lobby 6=2+0, none 0=0+0, tea 3=1+1";
    assert_eq!(rooms(&a.page("", "", 9)), listed);
    assert!(a.metrics.junk_total.get() > 0);
    let page = a.page("lobby", "", 9);
    assert_eq!(rooms(&page), "lobby 6=2+0");
}
