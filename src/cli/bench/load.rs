//! One publisher: publishes at its rate, or as fast as it is answered.

use std::time::{Duration, Instant};

use super::meter::Meter;
use crate::client::{Client, ClientPublish};
use crate::model::id::RoomName;
use crate::runtime;

pub(super) struct Publisher<'a> {
    pub(super) client: &'a Client,
    pub(super) room: &'a RoomName,
    /// How many connections receive a message.
    pub(super) receivers: u64,
    pub(super) meter: &'a Meter,
    pub(super) size: usize,
    pub(super) ephemeral: bool,
    /// When the first message is due.
    pub(super) first: Instant,
    /// The time from message to message; `None`: as fast as it is answered.
    pub(super) interval: Option<Duration>,
    pub(super) end: Instant,
    /// How long an answer may take.
    pub(super) timeout: Duration,
}

impl Publisher<'_> {
    pub(super) async fn run(self) {
        let mut due = self.first;
        while due < self.end && Instant::now() < self.end {
            runtime::sleep(due.saturating_duration_since(Instant::now())).await;
            if !self.publish(due).await {
                return;
            }
            due = match self.interval {
                Some(interval) => due + interval,
                None => Instant::now(),
            };
        }
    }

    /// Returns whether to go on.
    async fn publish(&self, due: Instant) -> bool {
        let options = ClientPublish {
            key: None,
            ephemeral: self.ephemeral,
        };
        let data = self.meter.message(due, self.size);
        let publish = self.client.publish(self.room.clone(), data, options);
        match runtime::timeout(self.timeout, publish).await {
            Ok(Ok(_)) => self.meter.published(due, self.receivers),
            Ok(Err(error)) => {
                self.meter.failed(&error);
                return false;
            }
            Err(runtime::Elapsed) => self.meter.not_answered(),
        }
        true
    }
}
