//! The log of refused handshakes: who was refused, why, and which option decides. Strangers cause
//! these lines, so each kind of refusal gets one in ten seconds, which counts those left out.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::http::{Refusal, RequestHead};
use crate::metrics::RefusalCause;

/// The time between two lines about the same kind of refusal.
const INTERVAL: Duration = Duration::from_secs(10);

/// Characters of a field of the request in a line; an origin is shorter.
const FIELD_CHARS: usize = 200;

/// What has been logged of each kind of refusal.
#[derive(Debug, Default)]
pub struct RefusalLog(Mutex<HashMap<RefusalCause, Kind>>);

#[derive(Debug)]
struct Kind {
    logged_at: Instant,
    /// Refusals since then.
    left_out: u64,
}

impl RefusalLog {
    /// Logs a refused handshake of the client at `address`, unless one of this kind was just
    /// logged.
    pub(super) fn note(
        &self,
        cause: RefusalCause,
        refusal: &Refusal,
        request: &RequestHead,
        address: IpAddr,
    ) {
        let Some(left_out) = self.admit(cause, Instant::now()) else {
            return;
        };
        log::warn!(
            status = refusal.status.as_u16(),
            reason = &*refusal.reason,
            origin = shown(request.header("origin").unwrap_or_default()).as_str(),
            host = shown(&request.host).as_str(),
            address = address.to_string().as_str(),
            hint = hint(cause),
            left_out = left_out;
            "a handshake was refused"
        );
    }

    /// How many of this kind were left out since the last line, if it is time for another.
    fn admit(&self, cause: RefusalCause, now: Instant) -> Option<u64> {
        let mut kinds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(kind) = kinds.get_mut(&cause) else {
            kinds.insert(
                cause,
                Kind {
                    logged_at: now,
                    left_out: 0,
                },
            );
            return Some(0);
        };
        if now.saturating_duration_since(kind.logged_at) < INTERVAL {
            kind.left_out += 1;
            return None;
        }
        kind.logged_at = now;
        Some(std::mem::take(&mut kind.left_out))
    }
}

/// What a stranger wrote, as ASCII without control characters and of bounded length.
fn shown(text: &str) -> String {
    let start: String = text.chars().take(FIELD_CHARS).collect();
    start.escape_default().to_string()
}

/// What decides about such handshakes.
fn hint(cause: RefusalCause) -> &'static str {
    match cause {
        RefusalCause::Origin => {
            "--allow-origin lists the pages that may connect besides those of the same host; a \
             proxy must pass on the Host that the page used"
        }
        RefusalCause::Token => {
            "--token-secret-file, --token-key, --token-audience and --token-issuer decide which \
             tokens are accepted"
        }
        RefusalCause::Address => {
            "--max-connections-per-address is the limit; behind a proxy, --trusted-proxy must name \
             it, or all clients share its address"
        }
        RefusalCause::Hook => "a hook of the embedding program decides",
        _ => {
            "a proxy in front must pass on Upgrade and Connection, with HTTP/1.1; checks of a load \
             balancer should use /readyz"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_a_line_in_ten_seconds_that_counts_those_left_out() {
        let (log, start) = (RefusalLog::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(log.admit(RefusalCause::Origin, at(0)), Some(0));
        assert_eq!(log.admit(RefusalCause::Origin, at(1)), None);
        assert_eq!(log.admit(RefusalCause::Origin, at(9)), None);
        assert_eq!(log.admit(RefusalCause::Token, at(9)), Some(0));
        assert_eq!(log.admit(RefusalCause::Origin, at(10)), Some(2));
        assert_eq!(log.admit(RefusalCause::Origin, at(20)), Some(0));
    }

    #[test]
    fn fields_of_strangers_are_escaped_and_cut() {
        assert_eq!(shown("https://a.test"), "https://a.test");
        assert_eq!(shown("a\u{202e}\u{85}\"é"), "a\\u{202e}\\u{85}\\\"\\u{e9}");
        assert_eq!(shown(&"a".repeat(10_000)).len(), FIELD_CHARS);
    }
}
