//! The rules that concern two options, checked when every value alone is valid.

use std::net::SocketAddr;

use super::numbers::{show_size, show_time};
use super::{BYTE_BURST, Config, Problem, RedisUrl, WebhookUrl};

/// A rule: whether it holds, the option to change if not, and the reason.
type Check = (bool, &'static str, String);

impl Config {
    /// A warning about a setting that is allowed, but may not be intended.
    pub(super) fn caution(&self) -> Option<String> {
        let url = self.webhook_url.as_ref().filter(|url| url.is_readable())?;
        Some(format!(
            "--webhook-url {url}: names of rooms and users are sent unencrypted; use https://"
        ))
    }

    /// The violated rules.
    pub(super) fn contradictions(&self) -> Vec<Problem> {
        let checks = self.listener_checks().into_iter();
        let checks = checks.chain(self.token_checks()).chain(self.limit_checks());
        let checks = checks.chain(self.backend_checks());
        let violated = checks.filter(|(holds, ..)| !holds);
        violated
            .map(|(_, option, reason)| Problem {
                option: option.into(),
                got: None,
                reason,
            })
            .collect()
    }

    fn listener_checks(&self) -> [Check; 2] {
        let listen = self.open || !self.is_open() || is_local(self.listen);
        let reachable = format!(
            "{} can be reached from other machines, and without a key for tokens clients are \
             not authenticated; give --token-secret-file or --token-key, listen on 127.0.0.1, \
             or give --open if that is intended",
            self.listen
        );
        let api_listen = self.api_key_file.is_some() || self.api_listen.is_none_or(is_local);
        let api_reachable = "can be reached from other machines, and without keys anyone there \
                             could publish; give --api-key-file, or listen on 127.0.0.1";
        [
            (listen, "listen", reachable),
            (api_listen, "api-listen", api_reachable.into()),
        ]
    }

    fn token_checks(&self) -> [Check; 4] {
        let open = "contradicts --token-secret-file and --token-key, which require a token; leave \
                    one of them out";
        let needs_key = |option, is_set: bool| {
            let reason = "needs --token-secret-file or --token-key";
            (!is_set || !self.is_open(), option, reason.into())
        };
        [
            (!self.open || self.is_open(), "open", open.into()),
            needs_key("token-audience", !self.token_audience.is_empty()),
            needs_key("token-issuer", !self.token_issuer.is_empty()),
            needs_key("token-in-query", self.token_in_query),
        ]
    }

    fn limit_checks(&self) -> [Check; 3] {
        let message = show_size(self.max_message);
        let pong_timeout = format!(
            "{} must be shorter than --heartbeat ({})",
            show_time(self.pong_timeout),
            show_time(self.heartbeat)
        );
        let outbox = format!(
            "{} must be at least four times --max-message ({message})",
            show_size(self.outbox_bytes)
        );
        let rate = format!(
            "{} must be at least a quarter of --max-message ({message}), or zero for no limit",
            show_size(self.session_bytes())
        );
        let burst = BYTE_BURST as usize * self.session_bytes();
        let fits_burst = burst == 0 || burst >= self.max_message;
        let fits_outbox = self.outbox_bytes / 4 >= self.max_message;
        [
            (
                self.pong_timeout < self.heartbeat,
                "pong-timeout",
                pong_timeout,
            ),
            (fits_outbox, "outbox-bytes", outbox),
            (fits_burst, "bytes-per-second", rate),
        ]
    }

    fn backend_checks(&self) -> [Check; 4] {
        let url = self.webhook_url.as_ref();
        let redis_ca = self.redis_ca.is_none() || self.redis.iter().any(RedisUrl::tls);
        let rediss = "needs a --redis address that begins with rediss://";
        let signed = url.is_none() || self.webhook_secret_file.is_some();
        let secret = "needs --webhook-secret-file, or the backend could not verify requests";
        let alone = self.webhook_secret_file.is_none() && self.webhook_room.is_empty();
        let webhook_ca = self.webhook_ca.is_none() || url.is_some_and(WebhookUrl::tls);
        let https = "needs a --webhook-url that begins with https://";
        let used = url.is_some() || alone;
        [
            (redis_ca, "redis-ca", rediss.into()),
            (signed, "webhook-url", secret.into()),
            (used, "webhook-secret-file", "needs --webhook-url".into()),
            (webhook_ca, "webhook-ca", https.into()),
        ]
    }
}

/// Whether only this machine can reach a listener.
fn is_local(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}
