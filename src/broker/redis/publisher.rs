//! The first of the broker's three tasks: receives the dispatcher's requests, forwards reads and
//! follows to the other two, and publishes. On the same connection it writes the node's presence.
//! It also runs the liveness probe and sets the node's readiness.

use std::sync::Arc;
use std::time::Instant;

use futures::{FutureExt, select_biased};

use super::formats::UnreadableRooms;
use super::liveness::{LivenessProbe, Signal};
use super::pipeline::Pipeline;
use super::presence::Presence;
use super::reconnector::{Change, End};
use super::request_queue::RedisRequest;
use super::subscription::SubscriptionCommand;
use super::{Ended, TICK, emit};
use crate::broker::{BrokerEvent, Change as ListChange, Request};
use crate::metrics::Metrics;
use crate::model::id::RoomName;
use crate::model::readiness::Readiness;
use crate::runtime;

/// The most requests taken before they are sent: the requests of one turn of the dispatcher leave
/// as one batch.
const TURN: usize = 256;

/// Everything the task owns. It ends when the dispatcher has dropped its end of `requests`, or when
/// one of the other tasks has ended; dropping `reads` and `commands` ends those.
pub struct Publisher {
    pub requests: flume::Receiver<Request>,
    pub pipeline: Pipeline,
    pub presence: Presence,
    pub unreadable: UnreadableRooms,
    pub changes: flume::Receiver<(RoomName, ListChange)>,
    pub reads: flume::Sender<RedisRequest>,
    pub commands: flume::Sender<SubscriptionCommand>,
    pub signals: flume::Receiver<Signal>,
    pub readiness: Readiness,
    pub metrics: Arc<Metrics>,
    pub events: flume::Sender<BrokerEvent>,
}

impl Publisher {
    /// Serves until one of its channels is disconnected.
    pub async fn run(mut self) {
        let mut liveness = LivenessProbe::new(Instant::now());
        let mut tick = Box::pin(runtime::sleep(TICK).fuse());
        loop {
            // `fuse`, because a bare flume future would not be polled once the other end is gone.
            let turn = select_biased! {
                change = self.pipeline.turn().fuse() => {
                    if let Some(Change::Up) = change {
                        liveness.publishes(true, Instant::now());
                        self.presence.connected();
                    }
                    self.check_liveness(&mut liveness)
                }
                end = self.presence.turn().fuse() => {
                    if let Err(end) = end {
                        self.pipeline.reconnect(end);
                    }
                    if self.presence.take_loss() {
                        self.pipeline.events.push(BrokerEvent::DataSetChanged);
                    }
                    Ok(())
                }
                change = self.changes.recv_async().fuse() => match change {
                    Ok((room, change)) => {
                        self.presence.on_change(&room, &change);
                        self.read_changes();
                        Ok(())
                    }
                    Err(flume::RecvError::Disconnected) => Err(Ended),
                },
                signal = self.signals.recv_async().fuse() => match signal {
                    Ok(signal) => {
                        liveness.signal(signal, Instant::now());
                        self.check_liveness(&mut liveness)
                    }
                    Err(flume::RecvError::Disconnected) => Err(Ended),
                },
                () = tick => {
                    tick = Box::pin(runtime::sleep(TICK).fuse());
                    self.pipeline.expire();
                    self.check_liveness(&mut liveness)
                }
                request = self.requests.recv_async().fuse() => match request {
                    Ok(request) => self.take(request),
                    Err(flume::RecvError::Disconnected) => Err(Ended),
                },
            };
            self.pipeline.set_format(self.presence.format());
            self.pipeline.send();
            self.presence.send(self.pipeline.connection());
            let events = std::mem::take(&mut self.pipeline.events);
            if turn.is_err() || emit(&self.events, events).await.is_err() {
                break;
            }
        }
        self.readiness.set_broker(false);
    }

    fn take(&mut self, first: Request) -> Result<(), Ended> {
        self.dispatch(first)?;
        for _ in 1..TURN {
            let Ok(request) = self.requests.try_recv() else {
                break;
            };
            self.dispatch(request)?;
        }
        Ok(())
    }

    fn dispatch(&mut self, request: Request) -> Result<(), Ended> {
        match request {
            Request::Publish(publish) => {
                self.pipeline.push(RedisRequest::Publish(publish));
                Ok(())
            }
            Request::Revoke(revoke) => {
                self.pipeline.push(RedisRequest::Revoke(revoke));
                Ok(())
            }
            Request::ReadRevocations(read) => self.read(RedisRequest::ReadRevocations(read)),
            Request::Read(read) => self.read(RedisRequest::Read(read)),
            Request::Members(members) => {
                // The reason may be a change that shows a loss, so handle the changes first.
                self.read_changes();
                self.read(RedisRequest::Members(members))
            }
            Request::ClusterQuery(query) => {
                self.read_changes();
                self.read(RedisRequest::ClusterQuery(query))
            }
            Request::SetPresence(presence) => {
                self.presence.set_presence(presence);
                Ok(())
            }
            Request::Connected(connected) => {
                self.presence.set_connection(connected);
                Ok(())
            }
            Request::Retire(span) => {
                self.presence.retire(span);
                Ok(())
            }
            Request::Follow(room) => self.send_command(SubscriptionCommand::Follow(room)),
            Request::Unfollow(room) => self.send_command(SubscriptionCommand::Unfollow(room)),
        }
    }

    fn read_changes(&mut self) {
        for (room, change) in self.changes.try_iter() {
            self.presence.on_change(&room, &change);
        }
    }

    fn read(&self, request: RedisRequest) -> Result<(), Ended> {
        self.reads.send(request).map_err(|_| Ended)
    }

    fn send_command(&self, command: SubscriptionCommand) -> Result<(), Ended> {
        self.commands.send(command).map_err(|_| Ended)
    }

    fn check_liveness(&mut self, liveness: &mut LivenessProbe) -> Result<(), Ended> {
        // Signals that arrived while this task waited for the dispatcher count first.
        while let Ok(signal) = self.signals.try_recv() {
            liveness.signal(signal, Instant::now());
        }
        if !self.pipeline.is_up() {
            liveness.publishes(false, Instant::now());
        }
        let now = Instant::now();
        let unreadable = self.unreadable.any(now);
        if self.readiness.set_unreadable(unreadable) && !unreadable {
            log::info!("no needed message is in a newer format any more");
        }
        let verdict = liveness.verdict(now);
        // Zero would mean that it is not known.
        let time = liveness.round_trip(now).map(|time| time.as_micros().max(1));
        let gauge = &self.metrics.redis_round_trip_microseconds;
        gauge.set(time.unwrap_or_default() as u64);
        if verdict.reconnect {
            self.pipeline.reconnect(End::NoProbe);
            self.send_command(SubscriptionCommand::Reconnect)?;
        } else if verdict.probe {
            self.pipeline.push(RedisRequest::Probe);
        }
        if self.readiness.set_broker(verdict.ready) {
            if verdict.ready {
                log::info!("Redis is reached; probes come back");
            } else {
                log::warn!("Redis is not reached; this node takes no new connections until it is");
            }
        }
        Ok(())
    }
}
