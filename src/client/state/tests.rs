//! A session against the frames of a server, in virtual time.

use super::*;
use crate::model::id::UserName;
use crate::protocol::native::receive::receive;

/// A session, its moment, and a way to read what it sends and delivers.
struct Fixture {
    session: ClientState,
    now: Instant,
}

/// The receiver of an answer.
type Answered<T> = flume::Receiver<Result<T, ClientError>>;

fn room(name: &str) -> RoomName {
    RoomName::new(name).unwrap()
}

fn fixture(credentials: Option<ClientCredentials>) -> Fixture {
    let now = Instant::now();
    let session = ClientState::new(now, credentials);
    Fixture { session, now }
}

fn connected() -> Fixture {
    let mut fixture = fixture(None);
    fixture.session.connected(fixture.now);
    fixture
}

impl Fixture {
    /// A frame of the server.
    fn receive(&mut self, text: &str) -> Result<(), ConnectionEnd> {
        let received = receive(text.as_bytes()).expect("a frame of a server");
        self.session.frame(self.now, received)
    }

    fn sent(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.session.next_frame()).collect()
    }

    fn pass(&mut self, time: Duration) -> Result<(), ConnectionEnd> {
        self.now += time;
        self.session.tick(self.now)
    }

    fn join(&mut self, name: &str) -> (Answered<Position>, crate::client::RoomEvents) {
        let ((events, receiver), (answer, answered)) = (flume::unbounded(), flume::bounded(1));
        let join = ClientCall::Join {
            room: room(name),
            since: None,
            events,
            answer,
        };
        self.session.input(self.now, join);
        (answered, receiver)
    }

    fn publish(&mut self, name: &str, data: &str, key: &str) -> Answered<Option<Position>> {
        let (answer, answered) = flume::bounded(1);
        let publish = ClientCall::Publish {
            room: room(name),
            data: RawValue::from_string(data.to_owned()).unwrap(),
            options: ClientPublish {
                key: Some(key.to_owned()),
                ephemeral: false,
            },
            answer,
        };
        self.session.input(self.now, publish);
        answered
    }

    /// The offsets of delivered messages; other events in their debug form.
    fn delivered(&mut self) -> Vec<String> {
        let events = std::iter::from_fn(|| self.session.next_event());
        let shown = events.map(|(_, _, event)| match event {
            Ok(RoomEvent::Message(message)) => message.offset.unwrap_or(0).to_string(),
            Ok(RoomEvent::Gap(position)) => format!("gap {}", position.offset),
            other => format!("{other:?}"),
        });
        shown.collect()
    }
}

const MESSAGE: &str = r#"{"type":"message","room":"r","offset":OFFSET,"time":1,"data":1}"#;

fn message(offset: u64) -> String {
    MESSAGE.replace("OFFSET", &offset.to_string())
}

const JOINED: &str = r#"{"type":"ok","id":1,"room":"r","epoch":"00000000000000aa","offset":5}"#;

#[test]
fn session_signs_in_before_it_joins() {
    let user = UserName::new("ada").unwrap();
    let mut client = fixture(Some(ClientCredentials::User(user)));
    let _joining = client.join("r");
    client.session.connected(client.now);
    assert_eq!(client.sent(), [r#"{"type":"auth","id":1,"user":"ada"}"#]);
    client
        .receive(r#"{"type":"ok","id":1,"user":"ada","room":"@ada"}"#)
        .unwrap();
    assert_eq!(client.sent(), [r#"{"type":"join","id":2,"room":"r"}"#]);
}

#[test]
fn refused_sign_in_is_final_and_fails_what_waits() {
    let token = ClientCredentials::Token(crate::model::secret::Secret::new("t".into()));
    let mut client = fixture(Some(token));
    let (joining, _events) = client.join("r");
    let published = client.publish("r", "1", "k");
    client.session.connected(client.now);
    let refused = r#"{"type":"error","id":1,"code":"unauthorized","reason":"expired"}"#;
    let Err(ConnectionEnd::Final(error)) = client.receive(refused) else {
        panic!("it must end");
    };
    client.session.fail(&error);
    assert_eq!(joining.recv().unwrap(), Err(error.clone()));
    assert_eq!(published.recv().unwrap(), Err(error));
}

#[test]
fn room_is_joined_again_from_its_position_after_a_reconnect() {
    let mut client = connected();
    let (joining, _events) = client.join("r");
    client.sent();
    client.receive(JOINED).unwrap();
    assert_eq!(joining.recv().unwrap().unwrap().offset, 5);
    client.receive(&message(6)).unwrap();
    client.session.lost("cut".into());
    client.session.connected(client.now);
    assert_eq!(
        client.sent(),
        [r#"{"type":"join","id":2,"room":"r","since":{"epoch":"00000000000000aa","offset":6}}"#]
    );
    let lost = r#"{"type":"ok","id":2,"room":"r","epoch":"00000000000000bb","offset":9,
                   "recovered":false}"#;
    client.receive(lost).unwrap();
    client.receive(&message(10)).unwrap();
    assert_eq!(client.delivered(), ["6", "gap 9", "10"]);
}

#[test]
fn messages_are_delivered_once_and_a_hole_ends_the_connection() {
    let mut client = connected();
    let (_joining, _events) = client.join("r");
    client.receive(JOINED).unwrap();
    for offset in [5, 6, 6, 7] {
        client.receive(&message(offset)).unwrap();
    }
    let own = r#"{"type":"message","room":"r","offset":8,"own":true}"#;
    client.receive(own).unwrap();
    client.receive(&message(9)).unwrap();
    assert!(matches!(
        client.receive(&message(11)),
        Err(ConnectionEnd::Reconnect { .. })
    ));
    assert_eq!(client.delivered(), ["6", "7", "9"]);
}

#[test]
fn publishes_of_a_room_wait_for_the_answer_to_the_former() {
    let mut client = connected();
    let first = client.publish("r", "1", "a");
    let second = client.publish("r", "2", "b");
    let other = client.publish("s", "3", "c");
    assert_eq!(
        client.sent(),
        [
            r#"{"type":"publish","id":1,"room":"r","key":"a","data":1}"#,
            r#"{"type":"publish","id":2,"room":"s","key":"c","data":3}"#,
        ]
    );
    client.receive(JOINED).unwrap();
    assert_eq!(first.recv().unwrap().unwrap().unwrap().offset, 5);
    assert_eq!(
        client.sent(),
        [r#"{"type":"publish","id":3,"room":"r","key":"b","data":2}"#]
    );
    assert!(second.is_empty() && other.is_empty());
}

#[test]
fn publish_is_repeated_under_its_key_until_it_is_answered() {
    let mut client = connected();
    let published = client.publish("r", "1", "k");
    client.sent();
    for (id, code) in [(1, "unavailable"), (2, "unknown")] {
        let error = format!(r#"{{"type":"error","id":{id},"code":"{code}","reason":"later"}}"#);
        client.receive(&error).unwrap();
        assert!(client.sent().is_empty());
        client.pass(RETRY).unwrap();
        assert_eq!(client.sent().len(), 1);
    }
    client.session.lost("cut".into());
    client.session.connected(client.now);
    assert_eq!(
        client.sent(),
        [r#"{"type":"publish","id":4,"room":"r","key":"k","data":1}"#]
    );
    client
        .receive(r#"{"type":"error","id":4,"code":"forbidden","reason":"no"}"#)
        .unwrap();
    let Err(ClientError::Refused(error)) = published.recv().unwrap() else {
        panic!("it must be refused");
    };
    assert_eq!(error.code, Code::Forbidden);
}

#[test]
fn publish_is_given_up_when_its_key_may_be_forgotten() {
    let mut client = fixture(None);
    let published = client.publish("r", "1", "k");
    client.pass(KEY_LIFE).unwrap();
    assert!(published.is_empty());
    client.pass(Duration::from_secs(1)).unwrap();
    assert_eq!(published.recv().unwrap(), Err(ClientError::Unknown));
    client.session.connected(client.now);
    assert!(client.sent().is_empty());
}

#[test]
fn silent_server_and_missing_answers_end_the_connection() {
    let mut client = connected();
    client
        .receive(r#"{"type":"welcome","node":"a","session":"s","heartbeat":5}"#)
        .unwrap();
    client.pass(Duration::from_secs(15)).unwrap();
    assert!(client.pass(Duration::from_secs(1)).is_err());

    let mut client = connected();
    let _published = client.publish("r", "1", "k");
    for _ in 0..5 {
        client.pass(Duration::from_secs(6)).unwrap();
        client.session.alive(client.now);
    }
    assert!(client.pass(Duration::from_secs(1)).is_err());
}

#[test]
fn removal_and_refused_joins_end_a_room_for_good() {
    let mut client = connected();
    let (_joining, _events) = client.join("r");
    client.receive(JOINED).unwrap();
    client
        .receive(r#"{"type":"removed","room":"r","reason":"by the operator"}"#)
        .unwrap();
    assert_eq!(client.delivered(), ["Err(Removed(\"by the operator\"))"]);
    let (joining, _events) = client.join("s");
    client
        .receive(r#"{"type":"error","id":2,"code":"forbidden","reason":"no"}"#)
        .unwrap();
    assert!(matches!(
        joining.recv().unwrap(),
        Err(ClientError::Refused(_))
    ));
    client.sent();
    client.session.lost("cut".into());
    client.session.connected(client.now);
    assert!(client.sent().is_empty(), "neither is joined again");
}

#[test]
fn bye_sets_the_time_of_the_reconnect() {
    let mut client = connected();
    let bye = r#"{"type":"bye","reason":"draining","retry":1840}"#;
    let expected = ConnectionEnd::Reconnect {
        reason: "draining".into(),
        after: Some(Duration::from_millis(1840)),
    };
    assert_eq!(client.receive(bye), Err(expected));
}

#[test]
fn queries_wait_for_a_connection_and_survive_its_loss() {
    let mut client = fixture(None);
    let (answer, answered) = flume::bounded(1);
    let query = HistoryQuery {
        room: room("r"),
        before: Some(9),
        limit: 2,
    };
    client
        .session
        .input(client.now, ClientCall::History { query, answer });
    for id in [1, 2] {
        client.session.connected(client.now);
        let expected = format!(r#"{{"type":"history","id":{id},"room":"r","before":9,"limit":2}}"#);
        assert_eq!(client.sent(), [expected]);
        if id == 1 {
            client.session.lost("cut".into());
        }
    }
    let page = r#"{"type":"ok","id":2,"room":"r","epoch":"00000000000000aa","more":true,
                   "messages":[{"offset":8,"time":1,"data":null}]}"#;
    client.receive(page).unwrap();
    let page = answered.recv().unwrap().unwrap();
    assert!(page.more && page.messages[0].offset == Some(8));
}
