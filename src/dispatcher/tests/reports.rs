//! The node's report, and the measured delivery times.

use super::*;
use crate::broker::LogRequest;

#[test]
fn report_is_published_once_and_its_result_is_ignored() {
    for refused in [false, true] {
        let mut bench = Bench::new();
        bench.member(1, "$nodes", 0);
        let requests = bench.turn([Event::Report(publication("well"))]);
        let [Request::Log(LogRequest::Publish(publish))] = &requests[..] else {
            panic!("{requests:?}");
        };
        assert_eq!(publish.publish.room.as_str(), "$nodes");
        assert!(publish.publish.ephemeral && publish.publish.key.is_none());
        let result = if refused {
            Err(Refused::Unavailable)
        } else {
            Ok(Position {
                epoch: Epoch::new(EPOCH),
                offset: 0,
            })
        };
        let ticket = publish.ticket;
        let requests = bench.turn([Event::Broker(BrokerEvent::Published { ticket, result })]);
        assert!(requests.is_empty() && bench.received(1).is_empty());
        assert!(bench.dispatcher.load().is_idle());
        assert_eq!(bench.dispatcher.turn.metrics.published_total.get(), 0);
    }
}

#[test]
fn delivery_time_is_recorded_once_per_publication() {
    let mut bench = Bench::new();
    bench.member(1, "lobby", 0);
    let began = Instant::now();
    let former = bench.dispatcher.turn.metrics.deliveries.counts();
    bench.turn([
        message("lobby", 1, "delivered"),
        message("lobby", 1, "a duplicate"),
        message("lobby", 3, "behind a hole"),
        message("elsewhere", 1, "a room without members"),
        Event::Broker(BrokerEvent::Ephemeral {
            room: name("lobby"),
            publication: publication("ephemeral"),
            received_at: began,
        }),
    ]);
    let ended = Instant::now() + Duration::from_millis(20);
    bench.dispatcher.record_turn(began, ended);
    let metrics = bench.dispatcher.turn.metrics.clone();
    let timed: u64 = metrics.deliveries.read().map(|(_, count)| count).sum();
    assert_eq!(timed, 2);
    let slowest = metrics.deliveries.counts().percentile_since(&former, 1.0);
    assert!(slowest >= Some(Duration::from_millis(20)), "{slowest:?}");
}
