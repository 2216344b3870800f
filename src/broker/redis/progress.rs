//! Detects whether the requests of a pipeline move: whether it has a connection, and whether Redis
//! answers. Plain logic.

use std::time::{Duration, Instant};

/// After so long without any answer to requests that wait, they do not move. Less than their
/// timeout, and more than Redis may be paused on purpose.
const STALLED: Duration = Duration::from_secs(3);

/// How long the connection may be down before that counts; clients do not notice less.
const ABSENCE: Duration = Duration::from_secs(1);

/// What a pipeline is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PipelineState {
    pub is_up: bool,
    /// Requests that wait or were sent; those that are parked wait for something else.
    pub unanswered: usize,
    pub parked: usize,
    /// How many requests Redis has answered so far.
    pub answered: u64,
}

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Progress {
    state: PipelineState,
    /// When the connection came or went.
    since: Instant,
    /// Since when requests have waited without any answer. If they time out, it is kept until Redis
    /// has answered another.
    waiting: Option<Instant>,
}

impl Progress {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            state: PipelineState::default(),
            since: now,
            waiting: None,
        }
    }

    /// The pipeline is in this state now.
    pub(super) fn observe(&mut self, state: PipelineState, now: Instant) {
        if state.is_up != self.state.is_up {
            self.since = now;
        }
        let is_new = state.is_up && !self.state.is_up;
        if is_new || state.answered > self.state.answered {
            self.waiting = None;
        }
        if state.unanswered > 0 {
            self.waiting.get_or_insert(now);
        }
        self.state = state;
    }

    /// For how long requests have not moved; `None` if they move, or none waits.
    pub(super) fn stalled(&self, now: Instant) -> Option<Duration> {
        let away = (!self.state.is_up).then(|| now.duration_since(self.since));
        let waited = self.waiting.map(|since| now.duration_since(since));
        let away = away.filter(|away| *away > ABSENCE);
        away.max(waited.filter(|waited| *waited >= STALLED))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(is_up: bool, unanswered: usize, answered: u64) -> PipelineState {
        PipelineState {
            is_up,
            unanswered,
            parked: 0,
            answered,
        }
    }

    fn after(seconds: u64, start: Instant) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn requests_without_any_answer_are_stalled_until_one_is_answered() {
        let start = Instant::now();
        let mut progress = Progress::new(start);
        progress.observe(state(true, 1, 0), start);
        progress.observe(state(true, 9, 0), after(2, start));
        assert_eq!(progress.stalled(after(2, start)), None);
        assert_eq!(progress.stalled(after(3, start)), Some(STALLED));
        // They have timed out, but nothing shows that others would be answered.
        progress.observe(state(true, 0, 0), after(5, start));
        progress.observe(state(true, 1, 0), after(6, start));
        let stalled = Duration::from_secs(6);
        assert_eq!(progress.stalled(after(6, start)), Some(stalled));
        progress.observe(state(true, 1, 1), after(7, start));
        assert_eq!(progress.stalled(after(9, start)), None);
        assert_eq!(progress.stalled(after(10, start)), Some(STALLED));
    }

    #[test]
    fn busy_or_idle_requests_are_not_stalled() {
        let start = Instant::now();
        let mut progress = Progress::new(start);
        for second in 0..20 {
            progress.observe(state(true, 100, second), after(second, start));
            assert_eq!(progress.stalled(after(second + 1, start)), None);
        }
        progress.observe(state(true, 0, 20), after(20, start));
        assert_eq!(progress.stalled(after(99, start)), None);
    }

    #[test]
    fn missing_connection_stalls_and_a_new_one_begins_anew() {
        let start = Instant::now();
        let mut progress = Progress::new(start);
        assert_eq!(progress.stalled(after(1, start)), None);
        assert_eq!(
            progress.stalled(after(2, start)),
            Some(Duration::from_secs(2))
        );
        progress.observe(state(false, 5, 0), after(2, start));
        progress.observe(state(true, 5, 0), after(9, start));
        assert_eq!(progress.stalled(after(11, start)), None);
        assert_eq!(progress.stalled(after(12, start)), Some(STALLED));
    }
}
