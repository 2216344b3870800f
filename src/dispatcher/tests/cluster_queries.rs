//! What this node publishes about its users' connections, and queries of backends about the whole
//! cluster.

use super::identity::{holder, secured};
use super::*;
use crate::broker::redis::wire::change::decode_info;
use crate::broker::{MemberPage, MembersQuery, MembersRequest, PresenceRequest, Refused};
use crate::model::cluster_query::{ClusterQuery, QueryResult, RoomCount};
use crate::model::identity::Identity;
use crate::protocol::Code;

impl Bench {
    /// The connections published since the last call: `+@ada 7 {"n":1}`, `-@ada 7`.
    fn connections(&mut self) -> Vec<String> {
        let requests = self.presence.extract_if(.., |it| {
            matches!(it, Request::Presence(PresenceRequest::Connected(_)))
        });
        let text = |request| match request {
            Request::Presence(PresenceRequest::Connected(it)) => {
                let sign = if it.live { '+' } else { '-' };
                let shown = it.connection.info.as_ref().map_or("", |info| info.get());
                let (session, node) = (it.connection.session.session, &it.connection.node);
                assert_eq!(node, &self.dispatcher.turn.settings.node);
                format!("{sign}{} {session} {shown}", it.user)
            }
            other => panic!("{other:?}"),
        };
        requests.map(text).collect()
    }

    fn call(&mut self, command: Command) -> (Vec<Request>, flume::Receiver<Answer>) {
        let (event, answers) = super::call(command);
        (self.turn([event]), answers)
    }
}

#[test]
fn connection_is_published_from_joining_the_personal_room_until_its_end() {
    let mut bench = secured();
    let expires = bench.expires_in(60);
    let ada = holder("ada", "*", expires);
    bench.signed_in(1, &ada, 0);
    assert_eq!(bench.connections(), ["+ada 1 "]);
    bench.signed_in(2, &ada, 0);
    assert_eq!(bench.connections(), ["+ada 2 "]);
    bench.turn([join(2, "lobby")]);
    assert_eq!(
        bench.connections(),
        [""; 0],
        "other rooms publish no connection"
    );

    let newer = Identity {
        info: decode_info(br#"{"n":1}"#).unwrap(),
        ..Identity::clone(&ada)
    };
    bench.turn([super::identity::identified(2, Arc::new(newer))]);
    assert_eq!(bench.connections(), [r#"+ada 2 {"n":1}"#]);

    // At once: a connection has no grace.
    for session in [2, 1] {
        let (session, close_reason) = (SessionId(session), None);
        bench.turn([Event::Closed {
            session,
            close_reason,
        }]);
    }
    assert_eq!(bench.connections(), ["-ada 2 ", "-ada 1 "]);
}

#[test]
fn anonymous_connection_is_not_published() {
    let mut bench = Bench::new();
    bench.member(1, "lobby", 0);
    let (session, close_reason) = (SessionId(1), None);
    bench.turn([Event::Closed {
        session,
        close_reason,
    }]);
    assert_eq!(bench.connections(), [""; 0]);
}

#[test]
fn members_query_of_a_backend_is_answered_by_the_broker() {
    let mut bench = Bench::new();
    bench.member(1, "lobby", 0);
    let list_read = |request: &Request| match request {
        Request::Presence(PresenceRequest::Members(MembersRequest { ticket, .. })) => Some(*ticket),
        _ => None,
    };
    let own = bench
        .presence
        .iter()
        .find_map(list_read)
        .expect("the node reads the list");
    let page = |version| MemberPage {
        version,
        ..MemberPage::default()
    };
    let member_page = |ticket, version| {
        let result = Ok(page(version));
        Event::Broker(BrokerEvent::MemberPage { ticket, result })
    };
    bench.turn([member_page(own, 3)]);
    bench.presence.clear();
    let (room, after, limit) = (name("lobby"), None, 7);
    let (_, answers) = bench.call(Command::Members(MembersQuery { room, after, limit }));
    let ticket = bench
        .presence
        .iter()
        .find_map(list_read)
        .expect("a read of the broker");
    bench.turn([member_page(ticket, 9)]);
    let Ok(json) = answers.try_recv().unwrap() else {
        panic!("no reply")
    };
    let json = String::from_utf8_lossy(&json);
    assert!(json.contains("\"version\":9,"), "{json}");
    assert!(bench.dispatcher.load().is_idle());
}

#[test]
fn cluster_query_is_sent_to_the_broker_and_its_result_or_error_returned() {
    let mut bench = Bench::new();
    let counted = |room: &str| RoomCount {
        room: name(room),
        connections: 3,
        users: 2,
        anonymous: 1,
    };
    for (result, wanted) in [
        (
            Ok(QueryResult::Room(counted("lobby"), None)),
            Ok("connections: 3"),
        ),
        (Err(Refused::Unavailable), Err(Code::Unavailable)),
    ] {
        let query = ClusterQuery::Room(name("lobby"));
        let (requests, answers) = bench.call(Command::ClusterQuery(Box::new(query.clone())));
        let [Request::Presence(PresenceRequest::ClusterQuery(request))] = &requests[..] else {
            panic!("{requests:?}")
        };
        assert_eq!(request.query, query);
        assert!(!bench.dispatcher.load().is_idle());
        let ticket = request.ticket;
        // A foreign ticket changes nothing, nor does a repeated one.
        for ticket in [Ticket(999), ticket, ticket] {
            let result = result.clone();
            bench.turn([Event::Broker(BrokerEvent::QueryResult { ticket, result })]);
        }
        match (answers.try_recv().unwrap(), wanted) {
            (Ok(json), Ok(part)) => assert!(String::from_utf8_lossy(&json).contains(part)),
            (Err(error), Err(code)) => assert_eq!(error.code, code),
            other => panic!("{other:?}"),
        }
        assert!(bench.dispatcher.load().is_idle());
    }
}
