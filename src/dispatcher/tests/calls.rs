//! API calls of backends.

use super::*;
use crate::broker::LogRequest;

/// A backend's publish, and the receiver of its result.
fn backends_publish(room: &str) -> (Event, flume::Receiver<Answer>) {
    let key = PublishKey {
        publisher: Publisher::Backend,
        key: "k".into(),
    };
    call(Command::Publish(Box::new(publish(room, Some(key)))))
}

fn published(ticket: Ticket, offset: u64) -> Event {
    let epoch = Epoch::new(EPOCH);
    let result = Ok(Position { epoch, offset });
    Event::Broker(BrokerEvent::Published { ticket, result })
}

fn publish_ticket(requests: &[Request]) -> Ticket {
    match requests {
        [Request::Log(LogRequest::Publish(publish))] => publish.ticket,
        other => panic!("{other:?}"),
    }
}

#[test]
fn api_call_is_answered_by_the_broker_and_has_its_own_keys() {
    let mut bench = Bench::new();
    let (event, answers) = backends_publish("@ada");
    let requests = bench.turn([event]);
    let [Request::Log(LogRequest::Publish(publish))] = &requests[..] else {
        panic!("{requests:?}")
    };
    let publisher = &publish.publish.key.as_ref().unwrap().publisher;
    assert_eq!(*publisher, Publisher::Backend);
    assert!(answers.is_empty());
    bench.turn([published(publish.ticket, 4)]);
    let answer = answers.try_recv().unwrap();
    let answer = parsed(&answer.unwrap());
    assert_eq!(answer["offset"], 4);
    assert!(answers.is_disconnected() && bench.dispatcher.load().is_idle());
}

#[test]
fn api_call_whose_caller_hung_up_leaves_no_state() {
    let mut bench = Bench::new();
    let (event, answers) = backends_publish("lobby");
    let ticket = publish_ticket(&bench.turn([event]));
    drop(answers);
    bench.turn([published(ticket, 1)]);
    assert!(bench.dispatcher.load().is_idle());
}

#[test]
fn api_calls_waiting_for_the_broker_are_bounded_and_leave_room_for_clients() {
    let mut bench = Bench::new();
    bench.open(1);
    let (mut requests, mut waiting) = (Vec::new(), Vec::new());
    for _ in 0..17 {
        let (events, answers): (Vec<_>, Vec<_>) =
            (0..1024).map(|_| backends_publish("lobby")).unzip();
        requests.extend(bench.turn(events));
        waiting.extend(answers);
    }
    assert_eq!(requests.len(), 16_384);
    let refused = waiting.last().unwrap().try_recv().unwrap();
    assert_eq!(
        refused.unwrap_err().code,
        crate::protocol::Code::Unavailable
    );
    assert_eq!(
        bench.turn([command(1, history("lobby"))]).len(),
        1,
        "clients are not refused"
    );
    let ticket = publish_ticket(&requests[..1]);
    bench.turn([published(ticket, 1)]);
    assert_eq!(
        bench.turn([backends_publish("lobby").0]).len(),
        1,
        "nor is the next call"
    );
}

#[test]
fn drain_waits_for_api_calls_until_its_deadline() {
    let (mut bench, mut deaf) = (Bench::new(), Bench::new());
    let (event, _answers) = backends_publish("lobby");
    let ticket = publish_ticket(&bench.turn([event]));
    let drain = || Event::Drain(Duration::from_secs(10));
    assert_eq!(bench.dispatcher.turn(bench.now, [drain()]), Flow::On);
    assert_eq!(
        bench.dispatcher.turn(bench.now, [published(ticket, 1)]),
        Flow::Ended
    );

    deaf.turn([backends_publish("lobby").0]);
    assert_eq!(deaf.dispatcher.turn(deaf.now, [drain()]), Flow::On);
    deaf.now.instant += Duration::from_secs(5);
    assert_eq!(deaf.dispatcher.turn(deaf.now, [Event::Tick]), Flow::Ended);
}
