//! The dispatcher's inbox: two bounded queues, one for events of the node's connections and one for
//! events of the broker, read alternately. However many connections flood the first queue, each
//! event of the broker waits for as many other events as are ahead of it in its own queue, and no
//! more; and vice versa.

use futures::future::{Either, select};

use super::Event;
use crate::broker::BrokerEvent;

/// The dispatcher's end of both queues.
pub(crate) struct Inbox {
    events: flume::Receiver<Event>,
    broker_events: flume::Receiver<BrokerEvent>,
    /// Which queue is next. It is kept across turns, because a turn can be as short as one event.
    is_brokers_turn: bool,
}

/// Makes an inbox whose queues each hold `capacity` events. A sender waits while its queue is full.
pub(crate) fn inbox(capacity: usize) -> (flume::Sender<Event>, flume::Sender<BrokerEvent>, Inbox) {
    let (send, events) = flume::bounded(capacity);
    let (send_broker_event, broker_events) = flume::bounded(capacity);
    let inbox = Inbox {
        events,
        broker_events,
        is_brokers_turn: true,
    };
    (send, send_broker_event, inbox)
}

impl Inbox {
    /// Waits for the next event. `None` if the broker has ended or all connections have.
    pub(crate) async fn next(&mut self) -> Option<Event> {
        if let Some(event) = self.try_next() {
            return Some(event);
        }
        match select(self.broker_events.recv_async(), self.events.recv_async()).await {
            Either::Left((event, _)) => event.ok().map(Event::Broker),
            Either::Right((event, _)) => event.ok(),
        }
    }

    /// Returns an event that is already queued, alternating while both queues have events.
    pub(crate) fn try_next(&mut self) -> Option<Event> {
        let event = || self.events.try_recv().ok();
        let broker_event = || self.broker_events.try_recv().ok().map(Event::Broker);
        let next = if self.is_brokers_turn {
            broker_event().or_else(event)
        } else {
            event().or_else(broker_event)
        };
        self.is_brokers_turn = !self.is_brokers_turn;
        next
    }
}

/// A channel keeps its events until the last sender is gone too. Dropping those of an ended
/// dispatcher at once ends the calls of the program and of the HTTP API that wait for replies.
impl Drop for Inbox {
    fn drop(&mut self) {
        self.events.drain();
        self.broker_events.drain();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::dispatcher::{ReplySink, ReplyTo};
    use crate::model::id::RoomName;
    use crate::model::source::CallerId;
    use crate::protocol::{Command, Reply};
    use crate::runtime;

    #[derive(Debug)]
    struct Held(#[expect(dead_code, reason = "its drop is what matters")] flume::Sender<()>);

    impl ReplySink for Held {
        fn caller(&self) -> CallerId {
            CallerId::PROGRAM
        }

        fn reply(&self, _: &Reply<'_>) {}
    }

    fn broker_event() -> BrokerEvent {
        BrokerEvent::Following(RoomName::new("r").unwrap())
    }

    fn is_broker_event(event: &Event) -> bool {
        matches!(event, Event::Broker(_))
    }

    #[test]
    fn broker_events_wait_for_as_many_others_at_most_during_a_flood() {
        let (send, send_broker_event, mut inbox) = inbox(1_000);
        (0..500).for_each(|_| send_broker_event.send(broker_event()).unwrap());
        let (mut taken, mut others) = (0, 0);
        while taken < 500 && others <= 500 {
            while send.try_send(Event::Tick).is_ok() {}
            match inbox.try_next() {
                Some(event) if is_broker_event(&event) => taken += 1,
                Some(_) => others += 1,
                None => panic!("both have something"),
            }
        }
        assert!(others <= 500, "{others}");
    }

    #[test]
    fn connection_events_get_every_second_turn_during_a_broker_flood() {
        let (send, send_broker_event, mut inbox) = inbox(1_000);
        (0..500).for_each(|_| send.send(Event::Tick).unwrap());
        let mut taken = 0;
        while !send.is_empty() && taken <= 500 {
            while send_broker_event.try_send(broker_event()).is_ok() {}
            taken += usize::from(is_broker_event(&inbox.try_next().unwrap()));
        }
        assert!(taken <= 500, "{taken}");
    }

    #[test]
    fn inbox_drops_its_events_when_it_ends() {
        let (send, _send_broker_event, inbox) = inbox(1);
        let (held, outcome) = flume::bounded(1);
        // Any event that holds something shows when it is dropped.
        let event = Event::Command {
            reply_to: ReplyTo::Caller(Arc::new(Held(held))),
            command: Command::Ping,
        };
        send.send(event).unwrap();
        drop(inbox);
        assert_eq!(outcome.try_recv(), Err(flume::TryRecvError::Disconnected));
    }

    #[test]
    fn inbox_returns_events_of_both_queues_and_the_end() {
        runtime::block_on(async {
            let (send, send_broker_event, mut inbox) = inbox(1);
            let sender = send.clone();
            runtime::spawn(async move { sender.send_async(Event::Tick).await.unwrap() });
            assert!(matches!(inbox.next().await, Some(Event::Tick)));
            runtime::spawn(
                async move { send_broker_event.send_async(broker_event()).await.unwrap() },
            );
            assert!(matches!(inbox.next().await, Some(Event::Broker(_))));
            assert!(inbox.next().await.is_none(), "the broker has ended");
            drop(send);
        });
    }
}
