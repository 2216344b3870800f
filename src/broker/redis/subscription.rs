//! The broker's task for the subscription: one connection for all rooms that have a local member.
//! [`Topics`] decides what to subscribe; this file sends the requests and forwards what arrives.

use std::sync::Arc;
use std::time::Instant;

use futures::future::{BoxFuture, Fuse};
use futures::{FutureExt, select};
use redis::RedisResult;

use super::liveness::LivenessSignal;
use super::names::Names;
use super::push_queue::{PushQueue, RedisPush};
use super::reconnector::{ConnectionChange, End, Reconnector};
use super::{Ended, TICK, emit};
use crate::broker::redis::topics::{SubscriptionRequest, Topics};
use crate::broker::redis::wire::{self, Format, TopicMessage, WireError};
use crate::broker::{BrokerEvent, Change};
use crate::metrics::Metrics;
use crate::model::id::RoomName;
use crate::runtime;

/// The most topics in one request.
const MAX_TOPICS: usize = 512;

/// The most pushes that are handled before other events.
const MAX_PUSHES: usize = 256;

/// A command of the shard.
#[derive(Debug)]
pub(super) enum SubscriptionCommand {
    Follow(RoomName),
    Unfollow(RoomName),
    /// No probe comes back: replace the connection.
    Reconnect,
}

/// Where the task sends what it receives.
pub(super) struct Reports {
    /// To the shard.
    pub signals: flume::Sender<LivenessSignal>,
    /// Also to the shard, which compares them with the node's own presence.
    pub changes: flume::Sender<(RoomName, Change)>,
    /// To the dispatcher.
    pub events: flume::Sender<BrokerEvent>,
}

/// Everything the task owns. It ends when `commands` or the dispatcher's inbox is disconnected.
pub(super) struct Subscription {
    commands: flume::Receiver<SubscriptionCommand>,
    reconnector: Reconnector,
    topics: Topics,
    names: Names,
    newest_format: Format,
    pushes: Option<PushQueue>,
    /// The request in flight.
    request: Fuse<BoxFuture<'static, RedisResult<()>>>,
    reports: Reports,
    metrics: Arc<Metrics>,
}

impl Subscription {
    pub(super) fn new(
        commands: flume::Receiver<SubscriptionCommand>,
        reconnector: Reconnector,
        topics: Topics,
        names: Names,
        newest_format: Format,
        reports: Reports,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            commands,
            reconnector,
            topics,
            names,
            newest_format,
            pushes: None,
            request: Fuse::terminated(),
            reports,
            metrics,
        }
    }

    /// Serves until one of its channels is disconnected.
    pub(super) async fn run(mut self) {
        let mut tick = Box::pin(runtime::sleep(TICK).fuse());
        loop {
            let mut events = Vec::new();
            select! {
                command = self.commands.recv_async().fuse() => match command {
                    Ok(command) => self.handle_command(command, &mut events),
                    Err(flume::RecvError::Disconnected) => return,
                },
                push = next(&self.pushes).fuse() => self.handle_pushes(push, &mut events),
                result = &mut self.request => if result.is_err() {
                    self.reconnect(End::Refused, &mut events);
                },
                change = self.reconnector.change().fuse() => self.changed(&change, &mut events),
                () = tick => {
                    tick = Box::pin(runtime::sleep(TICK).fuse());
                    self.topics.tick(Instant::now());
                },
            }
            self.recover(&mut events);
            self.send_request();
            if let Err(Ended) = emit(&self.reports.events, events).await {
                return;
            }
        }
    }

    fn handle_command(&mut self, command: SubscriptionCommand, events: &mut Vec<BrokerEvent>) {
        match command {
            SubscriptionCommand::Follow(room) => {
                if self.topics.follow(&room) {
                    events.push(BrokerEvent::Following(room));
                }
            }
            SubscriptionCommand::Unfollow(room) => self.topics.unfollow(&room, Instant::now()),
            SubscriptionCommand::Reconnect => self.reconnect(End::NoProbe, events),
        }
    }

    fn changed(&mut self, change: &ConnectionChange, events: &mut Vec<BrokerEvent>) {
        match change {
            ConnectionChange::Up => {
                self.pushes = self.reconnector.take_pushes();
                // An error means that the shard has ended; so will this task.
                let _ = self.reports.signals.send(LivenessSignal::Up);
            }
            ConnectionChange::Down => self.down(events),
        }
    }

    fn reconnect(&mut self, why: End, events: &mut Vec<BrokerEvent>) {
        if self.reconnector.connection().is_some() {
            self.reconnector.reconnect(why);
            self.down(events);
        }
    }

    /// Forwards what has already arrived: what follows it will be read from the log.
    fn down(&mut self, events: &mut Vec<BrokerEvent>) {
        if let Some(pushes) = self.pushes.take() {
            let now = Instant::now();
            while let Some(push) = pushes.try_next() {
                self.handle_push(push, now, events);
            }
        }
        self.request = Fuse::terminated();
        self.topics.lost();
        let _ = self.reports.signals.send(LivenessSignal::Down);
    }

    fn handle_pushes(&mut self, first: RedisPush, events: &mut Vec<BrokerEvent>) {
        // One reading of the clock for all that arrived together.
        let now = Instant::now();
        self.handle_push(first, now, events);
        for _ in 1..MAX_PUSHES {
            let Some(push) = self.pushes.as_ref().and_then(PushQueue::try_next) else {
                return;
            };
            self.handle_push(push, now, events);
        }
    }

    fn handle_push(&mut self, push: RedisPush, now: Instant, events: &mut Vec<BrokerEvent>) {
        match push {
            RedisPush::Subscribed(topic) => {
                let room = self.names.room_of(&topic);
                let confirmed = room.and_then(|room| self.topics.subscribed(room, now));
                events.extend(confirmed.map(BrokerEvent::Following));
            }
            RedisPush::Unsubscribed(topic) => {
                if let Some(room) = self.names.room_of(&topic) {
                    self.topics.unsubscribed(room);
                }
            }
            RedisPush::Message { topic, message } => {
                events.extend(self.message(&topic, &message, now))
            }
        }
    }

    /// The event of a message, if its room is followed and it is one of ours.
    fn message(&self, topic: &[u8], message: &[u8], received_at: Instant) -> Option<BrokerEvent> {
        let room = self.names.room_of(topic);
        let room = room.and_then(|room| self.topics.followed(room))?.clone();
        match wire::decode_message(message, self.newest_format) {
            Ok(TopicMessage::Message {
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
            Ok(TopicMessage::Ephemeral(publication)) => Some(BrokerEvent::Ephemeral {
                room,
                publication: Arc::new(publication),
                received_at,
            }),
            Ok(TopicMessage::Changed(change)) => {
                // If the queue is full, the next change shows a loss as well.
                let _ = self
                    .reports
                    .changes
                    .try_send((room.clone(), change.clone()));
                Some(BrokerEvent::Changed { room, change })
            }
            // The room's log and list have its content too, and are read now.
            Err(WireError::Newer(_)) => Some(BrokerEvent::Following(room)),
            Err(error) => {
                self.metrics.junk_total.add(1);
                log::debug!(room:% = room, error:% = error; "dropped a message that is not ours");
                None
            }
        }
    }

    /// Reports rooms that lost messages to a full queue as followed anew: what is published from
    /// here on is delivered, or the room is reported again.
    fn recover(&mut self, events: &mut Vec<BrokerEvent>) {
        let Some(pushes) = &self.pushes else { return };
        for topic in pushes.lost() {
            let room = self.names.room_of(&topic);
            let room = room.and_then(|room| self.topics.followed(room));
            events.extend(room.cloned().map(BrokerEvent::Following));
        }
    }

    /// Sends the next request, one at a time.
    fn send_request(&mut self) {
        if !futures::future::FusedFuture::is_terminated(&self.request) {
            return;
        }
        let Some(connection) = self.reconnector.connection() else {
            return;
        };
        let Some(request) = self.topics.next_request(MAX_TOPICS) else {
            return;
        };
        let mut connection = connection.clone();
        let topics = |rooms: Vec<RoomName>| -> Vec<String> {
            rooms.iter().map(|room| self.names.topic(room)).collect()
        };
        self.request = match request {
            SubscriptionRequest::Subscribe(rooms) => {
                let topics = topics(rooms);
                async move { connection.subscribe(topics).await }.boxed()
            }
            SubscriptionRequest::Unsubscribe(rooms) => {
                let topics = topics(rooms);
                async move { connection.unsubscribe(topics).await }.boxed()
            }
        }
        .fuse();
    }
}

/// The next push. Pending while there is no connection.
async fn next(pushes: &Option<PushQueue>) -> RedisPush {
    match pushes {
        Some(pushes) => pushes.next().await,
        None => std::future::pending().await,
    }
}
