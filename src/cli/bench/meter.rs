//! Counts what is published and delivered, and how long each took. All tasks of a run share it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

use crate::client::ClientError;
use crate::model::publication::Payload;
use crate::model::room_event::RoomEvent;

/// The longest time that is distinguished, in microseconds: ten minutes.
const LONGEST: u64 = 600_000_000;

pub(super) struct Meter {
    /// Distinguishes the messages of this run from others in the same rooms.
    run: u64,
    /// Times in messages count from here.
    start: Instant,
    published: AtomicU64,
    unanswered: AtomicU64,
    expected: AtomicU64,
    delivered: AtomicU64,
    /// Microseconds to the answer and to a delivery.
    answers: Mutex<Histogram<u64>>,
    deliveries: Mutex<Histogram<u64>>,
    refusal: Mutex<Option<String>>,
}

/// The data of a message.
#[derive(Deserialize, Serialize)]
struct BenchMessage<'a> {
    run: u64,
    /// When it was due, in microseconds of the run.
    due: u64,
    #[serde(borrow)]
    fill: &'a str,
}

fn histogram() -> Mutex<Histogram<u64>> {
    let histogram = Histogram::new_with_bounds(1, LONGEST, 3);
    Mutex::new(histogram.expect("the bounds are in order"))
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Meter {
    pub(super) fn new(run: u64) -> Self {
        Self {
            run,
            start: Instant::now(),
            published: AtomicU64::new(0),
            unanswered: AtomicU64::new(0),
            expected: AtomicU64::new(0),
            delivered: AtomicU64::new(0),
            answers: histogram(),
            deliveries: histogram(),
            refusal: Mutex::new(None),
        }
    }

    /// A message that is due at this moment, of about so many bytes.
    pub(super) fn message(&self, due: Instant, size: usize) -> Box<RawValue> {
        let due = micros(due.saturating_duration_since(self.start));
        let (run, fill) = (self.run, "");
        let empty = serde_json::to_string(&BenchMessage { run, due, fill });
        let length = empty.map_or(0, |text| text.len());
        let fill = "x".repeat(size.saturating_sub(length));
        let fill = &*fill;
        // A plain struct becomes JSON without fail.
        to_raw_value(&BenchMessage { run, due, fill }).unwrap_or_else(|_| RawValue::NULL.to_owned())
    }

    /// A publish was answered, and so many connections receive it.
    pub(super) fn published(&self, due: Instant, receivers: u64) {
        self.published.fetch_add(1, Ordering::Relaxed);
        self.expected.fetch_add(receivers, Ordering::Relaxed);
        locked(&self.answers).saturating_record(micros(due.elapsed()));
    }

    pub(super) fn not_answered(&self) {
        self.unanswered.fetch_add(1, Ordering::Relaxed);
    }

    /// The server refused a publish; the first reason is kept.
    pub(super) fn failed(&self, error: &ClientError) {
        locked(&self.refusal).get_or_insert_with(|| error.to_string());
    }

    pub(super) fn received(&self, event: &RoomEvent) {
        let RoomEvent::Message(message) = event else {
            return;
        };
        let Payload::Json(json) = &message.data else {
            return;
        };
        let Ok(message) = serde_json::from_str::<BenchMessage<'_>>(json.get()) else {
            return;
        };
        if message.run == self.run {
            let took = micros(self.start.elapsed()).saturating_sub(message.due);
            self.delivered.fetch_add(1, Ordering::Relaxed);
            locked(&self.deliveries).saturating_record(took);
        }
    }

    pub(super) fn publishes(&self) -> u64 {
        self.published.load(Ordering::Relaxed)
    }

    pub(super) fn delivered(&self) -> u64 {
        self.delivered.load(Ordering::Relaxed)
    }

    pub(super) fn expected(&self) -> u64 {
        self.expected.load(Ordering::Relaxed)
    }

    pub(super) fn unanswered(&self) -> u64 {
        self.unanswered.load(Ordering::Relaxed)
    }

    /// The deliveries that have not come. A message may come before the answer to its publish.
    pub(super) fn missing(&self) -> u64 {
        self.expected().saturating_sub(self.delivered())
    }

    pub(super) fn refusal(&self) -> Option<String> {
        locked(&self.refusal).clone()
    }

    /// The microseconds within which this part (0 to 1) of the answers came.
    pub(super) fn answer_quantile(&self, part: f64) -> u64 {
        locked(&self.answers).value_at_quantile(part)
    }

    /// The same for deliveries.
    pub(super) fn delivery_quantile(&self, part: f64) -> u64 {
        locked(&self.deliveries).value_at_quantile(part)
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
