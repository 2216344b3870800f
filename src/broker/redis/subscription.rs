//! The broker's task for the subscription: one connection for every room that has a local member.
//! What to ask is decided by [`Topics`]; this file carries it out, and passes on what comes.

use std::sync::Arc;
use std::time::Instant;

use futures::future::{BoxFuture, Fuse};
use futures::{FutureExt, select};
use redis::RedisResult;

use super::liveness::Signal;
use super::names::Names;
use super::push_queue::{Push, PushQueue};
use super::reconnector::{Change, End, Reconnector};
use super::{Ended, TICK, emit};
use crate::broker::redis::topics::{Ask, Topics};
use crate::broker::redis::wire::{self, Format, Heard, WireError};
use crate::broker::{BrokerEvent, Change as ListChange};
use crate::metrics::Metrics;
use crate::model::id::RoomName;
use crate::runtime;

/// How many topics go into one request.
const ASK: usize = 512;

/// How many pushes are handled before the other events are looked at.
const TURN: usize = 256;

/// What the publishing task orders.
#[derive(Debug)]
pub enum SubscriptionCommand {
    Follow(RoomName),
    Unfollow(RoomName),
    /// The pulse is gone: make the connection anew.
    Remake,
}

/// Where the task reports.
pub struct Reports {
    /// To the publishing task.
    pub signals: flume::Sender<Signal>,
    /// Also to the publishing task, which compares them with what it has said.
    pub changes: flume::Sender<(RoomName, ListChange)>,
    /// To the dispatcher.
    pub events: flume::Sender<BrokerEvent>,
}

/// Everything the task owns. It ends when `orders` or the dispatcher's inbox does.
pub struct Subscription {
    orders: flume::Receiver<SubscriptionCommand>,
    reconnector: Reconnector,
    topics: Topics,
    names: Names,
    newest_format: Format,
    pushes: Option<PushQueue>,
    /// The request under way.
    asked: Fuse<BoxFuture<'static, RedisResult<()>>>,
    reports: Reports,
    metrics: Arc<Metrics>,
}

impl Subscription {
    pub fn new(
        orders: flume::Receiver<SubscriptionCommand>,
        reconnector: Reconnector,
        topics: Topics,
        names: Names,
        newest_format: Format,
        reports: Reports,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            orders,
            reconnector,
            topics,
            names,
            newest_format,
            pushes: None,
            asked: Fuse::terminated(),
            reports,
            metrics,
        }
    }

    /// Serves until someone ends.
    pub async fn run(mut self) {
        let mut tick = Box::pin(runtime::sleep(TICK).fuse());
        loop {
            let mut told = Vec::new();
            select! {
                order = self.orders.recv_async().fuse() => match order {
                    Ok(order) => self.obey(order, &mut told),
                    Err(flume::RecvError::Disconnected) => return,
                },
                push = next(&self.pushes).fuse() => self.hear(push, &mut told),
                result = &mut self.asked => if result.is_err() {
                    self.remake(End::Refused, &mut told);
                },
                change = self.reconnector.change().fuse() => self.changed(&change, &mut told),
                () = tick => {
                    tick = Box::pin(runtime::sleep(TICK).fuse());
                    self.topics.tick(Instant::now());
                },
            }
            self.recover(&mut told);
            self.ask();
            if let Err(Ended) = emit(&self.reports.events, told).await {
                return;
            }
        }
    }

    fn obey(&mut self, order: SubscriptionCommand, told: &mut Vec<BrokerEvent>) {
        match order {
            SubscriptionCommand::Follow(room) => {
                if self.topics.follow(&room) {
                    told.push(BrokerEvent::Following(room));
                }
            }
            SubscriptionCommand::Unfollow(room) => self.topics.unfollow(&room, Instant::now()),
            SubscriptionCommand::Remake => self.remake(End::Unheard, told),
        }
    }

    fn changed(&mut self, change: &Change, told: &mut Vec<BrokerEvent>) {
        match change {
            Change::Up => {
                self.pushes = self.reconnector.take_pushes();
                // An error means that the publishing task has ended; so will this one.
                let _ = self.reports.signals.send(Signal::Up);
            }
            Change::Down => self.down(told),
        }
    }

    fn remake(&mut self, why: End, told: &mut Vec<BrokerEvent>) {
        if self.reconnector.connection().is_some() {
            self.reconnector.remake(why);
            self.down(told);
        }
    }

    /// What has come is passed on still: what follows it will be read from the log.
    fn down(&mut self, told: &mut Vec<BrokerEvent>) {
        if let Some(pushes) = self.pushes.take() {
            let now = Instant::now();
            while let Some(push) = pushes.try_next() {
                self.one(push, now, told);
            }
        }
        self.asked = Fuse::terminated();
        self.topics.lost();
        let _ = self.reports.signals.send(Signal::Down);
    }

    fn hear(&mut self, first: Push, told: &mut Vec<BrokerEvent>) {
        // One look at the clock for all that came together.
        let now = Instant::now();
        self.one(first, now, told);
        for _ in 1..TURN {
            let Some(push) = self.pushes.as_ref().and_then(PushQueue::try_next) else {
                return;
            };
            self.one(push, now, told);
        }
    }

    fn one(&mut self, push: Push, now: Instant, told: &mut Vec<BrokerEvent>) {
        match push {
            Push::Subscribed(topic) => {
                let room = self.names.room_of(&topic);
                let confirmed = room.and_then(|room| self.topics.subscribed(room, now));
                told.extend(confirmed.map(BrokerEvent::Following));
            }
            Push::Unsubscribed(topic) => {
                if let Some(room) = self.names.room_of(&topic) {
                    self.topics.unsubscribed(room);
                }
            }
            Push::Message { topic, message } => told.extend(self.message(&topic, &message, now)),
        }
    }

    /// The event of a message, if its room is followed and it is one of ours.
    fn message(&self, topic: &[u8], message: &[u8], received_at: Instant) -> Option<BrokerEvent> {
        let room = self.names.room_of(topic);
        let room = room.and_then(|room| self.topics.followed(room))?.clone();
        match wire::decode_message(message, self.newest_format) {
            Ok(Heard::Message {
                epoch,
                offset,
                publication,
            }) => Some(BrokerEvent::Message {
                room,
                epoch,
                offset,
                publication: Arc::new(publication),
                received_at,
            }),
            Ok(Heard::Ephemeral(publication)) => Some(BrokerEvent::Ephemeral {
                room,
                publication: Arc::new(publication),
                received_at,
            }),
            Ok(Heard::Changed(change)) => {
                // When it is full, somebody else's next change does as well.
                let _ = self
                    .reports
                    .changes
                    .try_send((room.clone(), change.clone()));
                Some(BrokerEvent::Changed { room, change })
            }
            // Whatever it says, the room's log and list say it too, and are read now.
            Err(WireError::Newer(_)) => Some(BrokerEvent::Following(room)),
            Err(error) => {
                self.metrics.junk_total.add(1);
                log::debug!(room:% = room, error:% = error; "a message is not one of ours");
                None
            }
        }
    }

    /// Rooms that lost messages to a full queue are begun anew: whatever is published from here on
    /// is delivered or makes this happen again.
    fn recover(&mut self, told: &mut Vec<BrokerEvent>) {
        let Some(pushes) = &self.pushes else { return };
        for topic in pushes.lost() {
            let room = self.names.room_of(&topic);
            let room = room.and_then(|room| self.topics.followed(room));
            told.extend(room.cloned().map(BrokerEvent::Following));
        }
    }

    /// Sends the next request, one at a time.
    fn ask(&mut self) {
        if !futures::future::FusedFuture::is_terminated(&self.asked) {
            return;
        }
        let Some(connection) = self.reconnector.connection() else {
            return;
        };
        let Some(ask) = self.topics.ask(ASK) else {
            return;
        };
        let mut connection = connection.clone();
        let topics = |rooms: Vec<RoomName>| -> Vec<String> {
            rooms.iter().map(|room| self.names.topic(room)).collect()
        };
        self.asked = match ask {
            Ask::Subscribe(rooms) => {
                let topics = topics(rooms);
                async move { connection.subscribe(topics).await }.boxed()
            }
            Ask::Unsubscribe(rooms) => {
                let topics = topics(rooms);
                async move { connection.unsubscribe(topics).await }.boxed()
            }
        }
        .fuse();
    }
}

/// The next push; never, while there is no connection.
async fn next(pushes: &Option<PushQueue>) -> Push {
    match pushes {
        Some(pushes) => pushes.next().await,
        None => std::future::pending().await,
    }
}
