//! What waits for the dispatcher: two bounded queues, one for what the node's own connections say
//! and one for the broker, taken from in turn. However many readers flood the first, each of the
//! broker's events waits for as many others as stand before it in its own queue, and no more; and
//! the other way round.

use futures::future::{Either, select};

use super::Event;
use crate::broker::BrokerEvent;

/// The dispatcher's end of both queues.
pub struct Inbox {
    events: flume::Receiver<Event>,
    broker_events: flume::Receiver<BrokerEvent>,
    /// Whose turn it is, kept from turn to turn: a turn can be as short as one event.
    is_brokers_turn: bool,
}

/// Makes an inbox for so many events of connections and as many of the broker. Whoever sends waits
/// while its queue is full.
pub fn inbox(capacity: usize) -> (flume::Sender<Event>, flume::Sender<BrokerEvent>, Inbox) {
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
    /// Waits for the next event; `None` when the broker or all connections have ended.
    pub async fn next(&mut self) -> Option<Event> {
        if let Some(event) = self.try_next() {
            return Some(event);
        }
        match select(self.broker_events.recv_async(), self.events.recv_async()).await {
            Either::Left((event, _)) => event.ok().map(Event::Broker),
            Either::Right((event, _)) => event.ok(),
        }
    }

    /// What is there already: from either queue in turn, while both have something.
    pub fn try_next(&mut self) -> Option<Event> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::id::RoomName;
    use crate::runtime;

    fn broker_event() -> BrokerEvent {
        BrokerEvent::Following(RoomName::new("r").unwrap())
    }

    fn is_broker_event(event: &Event) -> bool {
        matches!(event, Event::Broker(_))
    }

    #[test]
    fn a_batch_of_the_broker_waits_for_no_more_others_than_it_is_long_whoever_floods() {
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
    fn a_flood_of_the_broker_leaves_every_second_place_to_the_others() {
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
    fn whoever_waits_hears_either_side_and_the_end_of_it() {
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
