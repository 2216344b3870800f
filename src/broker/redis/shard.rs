//! A shard: everything that a node has for one Redis master. It publishes and writes the node's
//! presence on one connection, runs the liveness probe and sets the node's readiness; reads, the
//! subscription and webhooks are tasks of their own, with their own connections. They end when the
//! shard is dropped. A node has one shard; on a Redis Cluster it will have a map of them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::{BoxFuture, Fuse};
use futures::{FutureExt, select_biased};

use super::commands::Commands;
use super::connection::{Connector, Purpose};
use super::formats::UnreadableRooms;
use super::liveness::{LivenessProbe, LivenessSignal};
use super::names::Names;
use super::pipeline::{Pipeline, PipelineContext};
use super::presence::agent::{PresenceAgent, PresenceCommand};
use super::presence::synced::PresenceSynced;
use super::reader::{self, ReadsReport};
use super::reconnector::{ConnectionChange, End, Reconnector};
use super::request::{Completion, RedisRequest};
use super::subscription::{Reports, Subscription, SubscriptionCommand};
use super::topics::Topics;
use super::webhook_stream::{self, WebhookStream};
use super::{Ended, RedisStartError, TICK};
use crate::broker::{
    BrokerEvent, Change, LogRequest, PresenceRequest, PublishRequest, Refused, Request, Settings,
};
use crate::metrics::Metrics;
use crate::model::id::{self, RoomName};
use crate::model::readiness::Readiness;
use crate::model::webhook_event::WebhookSubscription;
use crate::runtime;

/// The most changes of lists that wait for the comparison with the node's own presence.
const MAX_CHANGES: usize = 1024;

/// What a shard needs to start.
pub(super) struct ShardSettings<'a> {
    pub connector: Arc<Connector>,
    pub names: Names,
    pub settings: &'a Settings,
    /// The length of the node's lease.
    pub lease: Duration,
    pub readiness: Readiness,
    pub metrics: Arc<Metrics>,
    /// To the dispatcher, from the tasks of the shard.
    pub events: flume::Sender<BrokerEvent>,
}

/// See the head of this file. The task that owns it passes it requests, calls [`Shard::turn`] in
/// its loop and then [`Shard::flush`].
pub(super) struct Shard {
    publishes: Pipeline,
    presence: PresenceAgent,
    presence_synced: PresenceSynced,
    liveness: LivenessProbe,
    unreadable: UnreadableRooms,
    /// To the task for reads; dropping it ends that task.
    reads: flume::Sender<RedisRequest>,
    /// To the subscription's task; likewise.
    subscription: flume::Sender<SubscriptionCommand>,
    /// Changes of lists that the subscription received, to compare with the node's own presence.
    changes: flume::Receiver<(RoomName, Change)>,
    /// From the subscription's task.
    signals: flume::Receiver<LivenessSignal>,
    tick: Fuse<BoxFuture<'static, ()>>,
    readiness: Readiness,
    metrics: Arc<Metrics>,
    events: Vec<BrokerEvent>,
}

impl Shard {
    /// Starts the tasks of a shard.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub(super) fn start(start: ShardSettings<'_>) -> Result<Self, RedisStartError> {
        let settings = start.settings;
        let presence_synced = PresenceSynced::default();
        let unreadable = UnreadableRooms::default();
        let context = PipelineContext {
            presence_synced: presence_synced.clone(),
            newest_format: settings.newest_format,
            unreadable: unreadable.clone(),
            metrics: start.metrics.clone(),
        };
        let pipeline = |purpose, timeout| -> Result<Pipeline, RedisStartError> {
            let commands = Commands::new(start.names.clone(), settings, id::random()?);
            let reconnector = start.reconnector(purpose);
            Ok(Pipeline::new(
                reconnector,
                commands,
                timeout,
                context.clone(),
            ))
        };
        let publishes = pipeline(Purpose::Publishes, settings.publish_timeout)?;
        let reads = start.spawn_reads(pipeline(Purpose::Reads, settings.publish_timeout)?);
        if let Some(wanted) = &settings.webhooks {
            let pipeline = pipeline(Purpose::Webhooks, webhook_stream::TIMEOUT)?;
            start.spawn_webhooks(wanted, pipeline);
        }
        let (subscription, signals, changes) = start.spawn_subscription();
        Ok(Self {
            publishes,
            presence: start.presence_agent()?,
            presence_synced,
            liveness: LivenessProbe::new(Instant::now()),
            unreadable,
            reads,
            subscription,
            changes,
            signals,
            tick: tick(),
            readiness: start.readiness,
            metrics: start.metrics,
            events: Vec::new(),
        })
    }

    /// Takes a request of the dispatcher; [`Shard::flush`] sends it.
    ///
    /// # Errors
    /// A task of the shard has ended.
    pub(super) fn submit(&mut self, request: Request) -> Result<(), Ended> {
        match request {
            Request::Log(request) => self.submit_to_logs(request),
            Request::Presence(request) => self.submit_to_presence(request),
        }
    }

    fn submit_to_logs(&mut self, request: LogRequest) -> Result<(), Ended> {
        match request {
            LogRequest::Publish(request) => self.publish(request),
            LogRequest::Revoke(revoke) => self.publishes.push(RedisRequest::Revoke(revoke)),
            LogRequest::Read(read) => self.read(RedisRequest::Read(read))?,
            LogRequest::ReadRevocations(read) => self.read(RedisRequest::ReadRevocations(read))?,
            LogRequest::Follow(room) => self.subscribe(SubscriptionCommand::Follow(room))?,
            LogRequest::Unfollow(room) => self.subscribe(SubscriptionCommand::Unfollow(room))?,
        }
        Ok(())
    }

    fn submit_to_presence(&mut self, request: PresenceRequest) -> Result<(), Ended> {
        match request {
            PresenceRequest::Members(members) => {
                self.read_presence(RedisRequest::Members(members))?;
            }
            PresenceRequest::ClusterQuery(query) => {
                self.read_presence(RedisRequest::ClusterQuery(query))?;
            }
            PresenceRequest::SetPresence(presence) => self.presence.set_presence(presence),
            PresenceRequest::Connected(connected) => self.presence.set_connection(connected),
            PresenceRequest::Retire(span) => self.presence.retire(span, Instant::now()),
        }
        Ok(())
    }

    /// Refuses a publication that not all live nodes can read yet.
    fn publish(&mut self, request: PublishRequest) {
        if self.publishes.can_express(&request.publish.publication) {
            self.publishes.push(RedisRequest::Publish(request));
        } else {
            let (ticket, result) = (request.ticket, Err(Refused::Unavailable));
            self.events.push(BrokerEvent::Published { ticket, result });
        }
    }

    /// Waits for the next answer, report or tick. Cancel safe.
    ///
    /// # Errors
    /// A task of the shard has ended.
    pub(super) async fn turn(&mut self) -> Result<(), Ended> {
        // `fuse`, because a bare flume future would not be polled once the other end is gone.
        select_biased! {
            change = self.publishes.turn().fuse() => {
                if let Some(ConnectionChange::Up) = change {
                    self.connected();
                }
                self.check_liveness()
            }
            change = self.changes.recv_async().fuse() => {
                let (room, change) = change.map_err(|_| Ended)?;
                self.on_change(&room, &change);
                self.read_changes();
                Ok(())
            }
            signal = self.signals.recv_async().fuse() => {
                self.liveness.signal(signal.map_err(|_| Ended)?, Instant::now());
                self.check_liveness()
            }
            () = &mut self.tick => {
                self.tick = tick();
                self.publishes.expire();
                self.check_liveness()
            }
        }
    }

    /// Sends what waits. Returns the events for the dispatcher.
    pub(super) fn flush(&mut self) -> Vec<BrokerEvent> {
        self.handle_completed();
        self.publishes
            .set_format(self.presence.format(Instant::now()));
        self.publishes.send();
        self.send_presence();
        std::mem::take(&mut self.events)
    }

    fn read(&self, request: RedisRequest) -> Result<(), Ended> {
        self.reads.send(request).map_err(|_| Ended)
    }

    /// The reason may be a change that shows a loss, so the changes are handled first.
    fn read_presence(&mut self, request: RedisRequest) -> Result<(), Ended> {
        self.read_changes();
        self.read(request)
    }

    fn subscribe(&self, command: SubscriptionCommand) -> Result<(), Ended> {
        self.subscription.send(command).map_err(|_| Ended)
    }

    fn connected(&mut self) {
        // The commands of the former connection have their results before it is renewed.
        self.handle_completed();
        let now = Instant::now();
        self.liveness.publishes(true, now);
        self.presence.connected(now);
    }

    fn handle_completed(&mut self) {
        let now = Instant::now();
        for completion in self.publishes.take_completed() {
            match completion {
                Completion::Event(event) => self.events.push(event),
                Completion::Presence(command, reply) => self.presence.finished(command, reply, now),
                // Those have a pipeline of their own.
                Completion::Webhooks(_) => {}
            }
        }
        if self.presence.take_loss() {
            self.events.push(BrokerEvent::DataSetChanged);
        }
    }

    /// Sends the next commands of the presence agent, which has one batch in flight at a time.
    fn send_presence(&mut self) {
        let now = Instant::now();
        if !self.publishes.is_up() {
            self.presence.disconnected();
        }
        self.presence_synced.set(self.is_synced(now));
        if self.publishes.is_ready() {
            let commands: Vec<PresenceCommand> = self.presence.take(now);
            if !commands.is_empty() {
                let requests = commands.into_iter().map(RedisRequest::Presence);
                self.publishes.send_directly(requests.collect());
            }
        }
    }

    fn is_synced(&self, now: Instant) -> bool {
        self.publishes.is_up() && self.presence.is_synced(now)
    }

    fn read_changes(&mut self) {
        while let Ok((room, change)) = self.changes.try_recv() {
            self.on_change(&room, &change);
        }
    }

    fn on_change(&mut self, room: &RoomName, change: &Change) {
        let now = Instant::now();
        self.presence.on_change(room, change, now);
        self.presence_synced.set(self.is_synced(now));
    }

    fn check_liveness(&mut self) -> Result<(), Ended> {
        // Signals that arrived while this task waited for the dispatcher count first.
        while let Ok(signal) = self.signals.try_recv() {
            self.liveness.signal(signal, Instant::now());
        }
        let now = Instant::now();
        if !self.publishes.is_up() {
            self.liveness.publishes(false, now);
        }
        self.check_unreadable(now);
        let verdict = self.liveness.verdict(now);
        self.report_round_trip(now);
        if verdict.reconnect {
            self.publishes.reconnect(End::NoProbe);
            self.subscribe(SubscriptionCommand::Reconnect)?;
        } else if verdict.probe {
            self.publishes.push(RedisRequest::Probe);
        }
        self.set_ready(verdict.ready);
        Ok(())
    }

    fn check_unreadable(&self, now: Instant) {
        let unreadable = self.unreadable.any(now);
        if self.readiness.set_unreadable(unreadable) && !unreadable {
            log::info!("no needed message is in a newer format any more");
        }
    }

    fn report_round_trip(&self, now: Instant) {
        // Zero would mean that it is not known.
        let time = self.liveness.round_trip(now);
        let micros = time.map_or(0, |time| time.as_micros().max(1));
        let gauge = &self.metrics.redis_round_trip_microseconds;
        gauge.set(micros as u64);
    }

    fn set_ready(&self, is_ready: bool) {
        if self.readiness.set_broker(is_ready) {
            if is_ready {
                log::info!("Redis is reached; probes come back");
            } else {
                log::warn!("Redis is not reached; this node takes no new connections until it is");
            }
        }
    }
}

impl Drop for Shard {
    fn drop(&mut self) {
        self.readiness.set_broker(false);
    }
}

impl ShardSettings<'_> {
    fn reconnector(&self, purpose: Purpose) -> Reconnector {
        Reconnector::new(self.connector.clone(), purpose, self.metrics.clone())
    }

    fn presence_agent(&self) -> Result<PresenceAgent, RedisStartError> {
        Ok(PresenceAgent::new(
            self.settings.incarnation,
            self.settings.newest_format,
            self.lease,
            id::random()?,
            Instant::now(),
        ))
    }

    fn spawn_reads(&self, pipeline: Pipeline) -> flume::Sender<RedisRequest> {
        let (sender, reads) = flume::unbounded();
        let report = ReadsReport::new(self.readiness.clone(), self.metrics.clone());
        runtime::spawn(reader::run(reads, pipeline, report, self.events.clone()));
        sender
    }

    fn spawn_webhooks(&self, wanted: &WebhookSubscription, pipeline: Pipeline) {
        let (polls, format) = (wanted.polls.clone(), self.settings.newest_format);
        let stream = WebhookStream::new(polls, pipeline, format, self.metrics.clone());
        runtime::spawn(stream.run());
    }

    fn spawn_subscription(
        &self,
    ) -> (
        flume::Sender<SubscriptionCommand>,
        flume::Receiver<LivenessSignal>,
        flume::Receiver<(RoomName, Change)>,
    ) {
        let (sender, commands) = flume::unbounded();
        let (signals_to, signals) = flume::unbounded();
        let (changes_to, changes) = flume::bounded(MAX_CHANGES);
        let node_topic = self.names.node_topic(self.settings.incarnation);
        let subscription = Subscription::new(
            commands,
            self.reconnector(Purpose::Subscription {
                node_topic,
                signals: signals_to.clone(),
            }),
            Topics::new(self.settings.topic_linger),
            self.names.clone(),
            self.settings.newest_format,
            Reports {
                signals: signals_to,
                changes: changes_to,
                events: self.events.clone(),
            },
            self.metrics.clone(),
        );
        runtime::spawn(subscription.run());
        (sender, signals, changes)
    }
}

fn tick() -> Fuse<BoxFuture<'static, ()>> {
    runtime::sleep(TICK).boxed().fuse()
}
