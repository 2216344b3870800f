//! The first of the broker's three tasks: takes what the dispatcher asks, passes reads and follows
//! on to the other two, and publishes. On the same connection it says who is here. It also feels
//! the node's pulse, and says whether the node is ready.

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

/// How many requests are taken before they are sent: what the dispatcher asked for in one turn
/// leaves as one batch.
const TURN: usize = 256;

/// Everything the task owns. It ends when the dispatcher has dropped its end of `requests`, or when
/// one of the other tasks has ended; dropping `reads` and `orders` ends those.
pub struct Publisher {
    pub requests: flume::Receiver<Request>,
    pub pipeline: Pipeline,
    pub presence: Presence,
    pub unreadable: UnreadableRooms,
    pub changes: flume::Receiver<(RoomName, ListChange)>,
    pub reads: flume::Sender<RedisRequest>,
    pub orders: flume::Sender<SubscriptionCommand>,
    pub signals: flume::Receiver<Signal>,
    pub readiness: Readiness,
    pub metrics: Arc<Metrics>,
    pub events: flume::Sender<BrokerEvent>,
}

impl Publisher {
    /// Serves until someone ends.
    pub async fn run(mut self) {
        let mut pulse = LivenessProbe::new(Instant::now());
        let mut tick = Box::pin(runtime::sleep(TICK).fuse());
        loop {
            // `fuse`, because a bare flume future would not be polled once the other end is gone.
            let turn = select_biased! {
                change = self.pipeline.turn().fuse() => {
                    if let Some(Change::Up) = change {
                        pulse.publishes(true, Instant::now());
                        self.presence.connected(self.pipeline.learned());
                    }
                    self.feel(&mut pulse)
                }
                end = self.presence.turn().fuse() => {
                    if let Err(end) = end {
                        self.pipeline.remake(end);
                    }
                    if self.presence.take_loss() {
                        self.pipeline.events.push(BrokerEvent::DataSetChanged);
                    }
                    Ok(())
                }
                change = self.changes.recv_async().fuse() => match change {
                    Ok((room, change)) => {
                        self.presence.on_change(&room, &change);
                        self.hear();
                        Ok(())
                    }
                    Err(flume::RecvError::Disconnected) => Err(Ended),
                },
                signal = self.signals.recv_async().fuse() => match signal {
                    Ok(signal) => {
                        pulse.signal(signal, Instant::now());
                        self.feel(&mut pulse)
                    }
                    Err(flume::RecvError::Disconnected) => Err(Ended),
                },
                () = tick => {
                    tick = Box::pin(runtime::sleep(TICK).fuse());
                    self.pipeline.expire();
                    self.feel(&mut pulse)
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
        self.pass_on(first)?;
        for _ in 1..TURN {
            let Ok(request) = self.requests.try_recv() else {
                break;
            };
            self.pass_on(request)?;
        }
        Ok(())
    }

    fn pass_on(&mut self, request: Request) -> Result<(), Ended> {
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
                // It may be asked because of a change that shows a loss; that comes first.
                self.hear();
                self.read(RedisRequest::Members(members))
            }
            Request::Census(census) => {
                self.hear();
                self.read(RedisRequest::Census(census))
            }
            Request::SetPresence(here) => {
                self.presence.here(here);
                Ok(())
            }
            Request::Connected(connected) => {
                self.presence.is_connected(connected);
                Ok(())
            }
            Request::Retire(span) => {
                self.presence.retire(span);
                Ok(())
            }
            Request::Follow(room) => self.order(SubscriptionCommand::Follow(room)),
            Request::Unfollow(room) => self.order(SubscriptionCommand::Unfollow(room)),
        }
    }

    fn hear(&mut self) {
        for (room, change) in self.changes.try_iter() {
            self.presence.on_change(&room, &change);
        }
    }

    fn read(&self, job: RedisRequest) -> Result<(), Ended> {
        self.reads.send(job).map_err(|_| Ended)
    }

    fn order(&self, order: SubscriptionCommand) -> Result<(), Ended> {
        self.orders.send(order).map_err(|_| Ended)
    }

    fn feel(&mut self, pulse: &mut LivenessProbe) -> Result<(), Ended> {
        // Whatever was heard while this task waited for the dispatcher counts first.
        while let Ok(signal) = self.signals.try_recv() {
            pulse.signal(signal, Instant::now());
        }
        if !self.pipeline.is_up() {
            pulse.publishes(false, Instant::now());
        }
        let now = Instant::now();
        let unreadable = self.unreadable.any(now);
        if self.readiness.set_unreadable(unreadable) && !unreadable {
            log::info!("no message that is needed is in a newer format any more");
        }
        let verdict = pulse.verdict(now);
        // Zero would say that it is not known.
        let time = pulse.round_trip(now).map(|time| time.as_micros().max(1));
        let gauge = &self.metrics.redis_round_trip_microseconds;
        gauge.set(time.unwrap_or_default() as u64);
        if verdict.remake {
            self.pipeline.remake(End::Unheard);
            self.order(SubscriptionCommand::Remake)?;
        } else if verdict.probe {
            self.pipeline.push(RedisRequest::Probe);
        }
        if self.readiness.set_broker(verdict.ready) {
            match verdict.ready {
                true => log::info!("Redis is reached; what is published comes back"),
                false => log::warn!(
                    "Redis is not reached; this node takes no new connections until it is"
                ),
            }
        }
        Ok(())
    }
}
