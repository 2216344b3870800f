//! The configuration of a node. Each option stands once, in the list below. It is a flag, a
//! `SWITCHBOARD_*` variable, a key of the TOML file given by `--config` and a field of [`Config`].
//! A flag takes precedence over the variable, the variable over the file, the file over the
//! default.

mod api_commands;
pub mod api_keys;
mod api_url;
mod arity;
mod bench;
mod checks;
mod client_commands;
mod command_line;
mod identity;
mod kinds;
mod numbers;
mod options;
mod parser;
mod redis_url;
mod server_url;
mod sources;
mod token;
mod tools;
mod values;
mod webhook_url;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use log::LevelFilter;

use crate::model::pattern::{Pattern, RoomSwitch};
use crate::model::retention::RetentionRule;
use crate::model::rights;

pub use api_commands::{ApiCommand, ApiInvocation, ApiOptions};
pub use api_url::ApiUrl;
pub use bench::{BenchOptions, BenchRequest};
pub use client_commands::{ClientCommand, ClientInvocation, ConnectOptions, Start};
pub use command_line::Invocation;
pub use identity::{SecretFile, TokenKey};
pub use redis_url::RedisUrl;
pub use server_url::ServerUrl;
pub use token::{TokenReadRequest, TokenRequest};
pub use tools::DrainRequest;
pub use values::{ConfigError, Problem};
pub use webhook_url::WebhookUrl;

use api_keys::ApiKeyFile;
use arity::{many, maybe, one, one_or_empty};
use identity::{room_rule, secret_file, token_key};
use kinds::{
    address, claim, directory, file, label, log_level, network, origin, retention_rule,
    room_pattern, room_switch, switch, url_path,
};
use numbers::{GIB, HOUR, KIB, MIB, MINUTE, SECOND, TENTH, count, size, time};
use options::{Options, options};
use parser::ValueParser;
use values::Values;

options! {
    /// The configuration of a node: the options of `switchboard serve`, checked.
    pub struct Config {
        /// Warnings to log at the start.
        pub warnings: Vec<String>,
    }

    "Network" {
        /// Where to listen: an IP address or host name, and a port; port 0 takes any free one. Put
        /// a proxy in front for anything but this machine.
        listen: SocketAddr = one(address()), "HOST:PORT", "127.0.0.1:9090";

        /// Accept any client under any name, from other machines too. Required to listen on more
        /// than the loopback address without a key for tokens, because then clients are not
        /// authenticated.
        open: bool = one(switch()), "BOOL", "false";

        /// The label of this node in logs, on the status page and in messages to clients. It
        /// need not be unique. By default the host name and the port.
        node: String = one_or_empty(label("_.:-")), "LABEL", "";

        /// Other sites whose pages may connect, like `https://chat.example`; pages from this host
        /// always may. The `*` in `https://*.chat.example` stands for exactly one label. With
        /// `null`, pages that are files may connect, and any page in a sandboxed frame. Repeat it,
        /// or separate by commas.
        allow_origin: Vec<String> = many(origin()), "ORIGIN", "";

        /// Addresses or networks, like 10.0.0.0/8, of the proxies whose X-Forwarded-For is trusted,
        /// or Forwarded in requests without it. From other peers both are ignored. Repeat it, or
        /// separate by commas.
        trusted_proxy: Vec<IpNet> = many(network()), "IP[/BITS]", "";

        /// A directory served instead of the built-in pages; for work on the pages.
        www: Option<PathBuf> = maybe(directory()), "DIR", "";

        /// A WebSocket endpoint that sends every message back, for conformance suites. By default
        /// there is none.
        echo_path: Option<String> = maybe(url_path()), "PATH", "";
    }

    "HTTP API" {
        /// A file with the keys of the HTTP API, one per line, as KEY or NAME:KEY, of 32 characters
        /// at least. Without it the API serves programs on this machine alone, in open mode on the
        /// loopback interface, and is off otherwise.
        api_key_file: Option<ApiKeyFile> = maybe(api_keys::parser()), "FILE", "";

        /// A listener of its own for the HTTP API and /metrics, which are then not served on
        /// --listen, and /metrics needs no key. By default they are served there.
        api_listen: Option<SocketAddr> = maybe(address()), "HOST:PORT", "";

        /// How many calls of the HTTP API the node carries out at once. One more is answered at
        /// once: 503, try again or use another node. While Redis does not answer, calls pile up.
        api_calls: usize = one(count(1, 1_000_000)), "COUNT", "1024";
    }

    "Identity and rights" {
        /// The file with the secret that signs tokens (HS256), 32 bytes or more. With this or a
        /// public key, clients sign in with tokens only. Anyone who can read it can sign in as any
        /// user.
        token_secret_file: Option<SecretFile> = maybe(secret_file()), "FILE", "";

        /// A file with a public key of the signer of tokens, in PEM (RSA: RS256, P-256: ES256,
        /// Ed25519: EdDSA), or with a JWK set. Of several, a token names one by its kid: give it as
        /// KID=FILE, unless the file has it. Repeat it, or separate by commas.
        token_key: Vec<TokenKey> = many(token_key()), "[KID=]FILE", "";

        /// The accepted audiences (aud). Without it, a token that names an audience is refused.
        /// Repeat it, or separate by commas: one must be named.
        token_audience: Vec<String> = many(claim()), "NAME", "";

        /// The accepted issuers (iss). Without it, any issuer with the key. Repeat it, or separate
        /// by commas.
        token_issuer: Vec<String> = many(claim()), "NAME", "";

        /// The longest that a token may live, from iat to exp; longer ones are refused. A
        /// revocation is stored for this time.
        token_lifetime: Duration = one(time(MINUTE, 720 * HOUR)), "TIME", "24h";

        /// Take tokens from the query too (`/ws?token=`), for clients that cannot send it
        /// otherwise. Proxies write queries into their logs.
        token_in_query: bool = one(switch()), "BOOL", "false";

        /// What clients may do without a token's grant in rooms whose names match a pattern, in
        /// which * stands for any text: `lobby=public`. public: everything, for every client;
        /// users: everything, for signed-in clients; read-only: everything but publishing, for
        /// every client; server: nothing, and no token lets a client publish; token: nothing. The
        /// first match applies; else it is public in open mode and token otherwise. Patterns for
        /// rooms that begin with $ or @ begin with that sign. Repeat it, or separate by commas.
        room: Vec<rights::Rule> = many(room_rule()), "PATTERN=POLICY", "";
    }

    "Redis" {
        /// The Redis (7 or later) or Valkey that connects the nodes, as
        /// `redis://USER:PASSWORD@HOST:PORT/DB`, or `rediss://` for TLS. Give several addresses and
        /// the one that is the master is used. Without any, the node runs alone and keeps
        /// everything in memory. Other users of the machine can read flags: give a password by
        /// variable or file. Repeat it, or separate by commas.
        redis: Vec<RedisUrl> = many(redis_url::parser()), "URL", "";

        /// A PEM file with the authorities that may have signed the server's certificate, instead
        /// of the public ones. Only with `rediss://`.
        redis_ca: Option<PathBuf> = maybe(file()), "FILE", "";

        /// The prefix of every key and channel in Redis. Nodes with the same prefix form a
        /// cluster; several clusters may share a Redis under different prefixes.
        prefix: String = one(label("_.-")), "NAME", "switchboard";

        /// Use a Redis that has a maxmemory and another maxmemory-policy than noeviction. When its
        /// memory is full it deletes rooms, and clients see gaps. Without this option the node is
        /// not ready.
        allow_eviction: bool = one(switch()), "BOOL", "false";

        /// How long a publish waits for Redis before it is answered as unknown. A
        /// longer timeout survives longer failovers, but keeps publishers waiting.
        publish_timeout: Duration = one(time(TENTH, MINUTE)), "TIME", "5s";

        /// How long joining a room waits for Redis before it is answered as unavailable.
        join_timeout: Duration = one(time(TENTH, MINUTE)), "TIME", "5s";

        /// How long a node stays subscribed to a room after its last member left, so that a reload
        /// costs Redis nothing. Zero unsubscribes at once.
        topic_linger: Duration = one(time(Duration::ZERO, HOUR)), "TIME", "5s";
    }

    "Connections" {
        /// How many connections may be open at once. Zero takes what the limit of open files
        /// allows, less a reserve of 256.
        max_connections: usize = one(count(0, 10_000_000)), "COUNT", "0";

        /// How many connections one client address may have at once; IPv6 addresses count by their
        /// /64. Zero is no limit. By default 1024, which is enough for a company or a mobile
        /// network behind one address, and no limit in open mode. Behind a proxy give
        /// --trusted-proxy, or all clients share the proxy's address.
        max_connections_per_address: Option<usize> = maybe(count(0, 10_000_000)), "COUNT", "";

        /// How long a client may take to send the head of a request.
        head_timeout: Duration = one(time(TENTH, 5 * MINUTE)), "TIME", "5s";

        /// How long an HTTP connection may stay silent between two requests. Set it above the
        /// proxy's own timeout for idle upstream connections, which is 60s for most.
        idle_timeout: Duration = one(time(TENTH, HOUR)), "TIME", "75s";

        /// How large the head of a request may be. Raise it for large cookies.
        max_head: usize = one(size(KIB, MIB)), "SIZE", "16KiB";

        /// How large a message from a client may be; larger ones close its connection.
        max_message: usize = one(size(KIB, 16 * MIB)), "SIZE", "64KiB";

        /// How many frames a message from a client may come in; more close its connection. Browsers
        /// send one.
        max_fragments: usize = one(count(1, 1_000_000)), "COUNT", "1024";

        /// How long a message from a client may take to arrive, from its first byte to its last.
        message_timeout: Duration = one(time(SECOND, HOUR)), "TIME", "1m";

        /// How deeply a command may be nested, its data included; deeper ones are refused. Raise it
        /// only if all members can read as much.
        max_depth: usize = one(count(2, 1000)), "COUNT", "64";

        /// How many commands and pings a client may send per second, and twice as many at once; a
        /// join, a page of history or of members or an auth counts as four. Above it the node reads
        /// more slowly. Zero is no limit. By default 100, and no limit in open mode.
        commands_per_second: Option<usize> = maybe(count(0, 1_000_000)), "COUNT", "";

        /// How many bytes a client may send per second, and four times as many at once, which must
        /// be enough for the largest message. Above it the node reads more slowly. Zero is no
        /// limit. By default 256KiB, and no limit in open mode.
        bytes_per_second: Option<usize> = maybe(size(0, GIB)), "SIZE", "";

        /// How long a client may go on sending more than its rate before it is disconnected. Those
        /// that wait for answers are only slowed down.
        rate_timeout: Duration = one(time(SECOND, HOUR)), "TIME", "10s";

        /// How often a silent client is pinged. It must be shorter than any timeout of the proxies
        /// in between.
        heartbeat: Duration = one(time(SECOND, HOUR)), "TIME", "25s";

        /// How long a pinged client may stay silent before its connection is given up. It must be
        /// shorter than the heartbeat.
        pong_timeout: Duration = one(time(TENTH, HOUR)), "TIME", "10s";

        /// How long a closing connection waits for the client's close frame.
        close_timeout: Duration = one(time(TENTH, MINUTE)), "TIME", "5s";

        /// How much may wait to be sent to one client. A client with more is too slow: it is
        /// disconnected, and recovers on its return. It must hold four of the largest messages.
        outbox_bytes: usize = one(size(64 * KIB, GIB)), "SIZE", "1MiB";

        /// How many frames may wait to be sent to one client; the second bound of the same.
        outbox_frames: usize = one(count(16, 1_000_000)), "COUNT", "4096";

        /// How long a node that is stopping takes to close its connections. Zero closes all at
        /// once.
        drain_time: Duration = one(time(Duration::ZERO, HOUR)), "TIME", "10s";
    }

    "Rooms" {
        /// How many rooms one client may be in at once.
        rooms_per_session: usize = one(count(1, 100_000)), "COUNT", "128";

        /// How many rooms a node may have members in at once; joining further ones is refused.
        max_rooms: usize = one(count(1, 10_000_000)), "COUNT", "100000";

        /// How many messages a room keeps for clients that reconnect. A client that missed more
        /// receives a gap.
        history_size: usize = one(log_size()), "COUNT", "1000";

        /// How long a room in which nothing is published keeps its messages.
        history_age: Duration = one(log_age()), "TIME", "5m";

        /// Other limits for rooms whose names match a pattern, in which * stands for any text:
        /// chat.*=500/1h keeps 500 messages for an hour. The first match applies. Repeat it, or
        /// separate by commas.
        history: Vec<RetentionRule> = many(retention_rule(log_size(), log_age())), "RULE", "";

        /// How much memory a node without Redis spends on the messages of all rooms together.
        /// Beyond it the oldest messages of the largest rooms are dropped first, and a client that
        /// reconnects and misses them receives a gap.
        history_memory: usize = one(size(MIB, 1024 * GIB)), "SIZE", "256MiB";

        /// How much memory the node spends on the newest messages of its rooms, from which clients
        /// that reconnect are served without reading Redis.
        recent_memory: usize = one(size(0, 1024 * GIB)), "SIZE", "64MiB";

        /// How long a user whose last connection has left a room may take to return before the
        /// members receive `left`: a reload or a change of node then causes no events. Zero sends
        /// it at once.
        presence_grace: Duration = one(time(Duration::ZERO, 5 * MINUTE)), "TIME", "5s";

        /// Whether members receive an event for each join and leave, for rooms whose names match a
        /// pattern: big.*=off reduces the traffic of large rooms; the members can still be listed.
        /// The first match applies; without one it is on, but off in personal rooms. Repeat it, or
        /// separate by commas.
        presence_events: Vec<RoomSwitch> = many(room_switch()), "RULE", "";

        /// How much memory the node spends on the lists of its rooms' members. Rooms beyond it read
        /// Redis each time.
        presence_memory: usize = one(size(0, 1024 * GIB)), "SIZE", "64MiB";
    }

    "Webhooks" {
        /// Where to send webhooks: events that rooms are occupied or vacated and users online or
        /// offline. Configure all nodes alike. By default no webhooks are sent.
        webhook_url: Option<WebhookUrl> = maybe(webhook_url::parser()), "URL", "";

        /// The file with the secret that signs webhooks, so that the backend can verify them: at
        /// least 32 bytes, like those of `openssl rand -hex 32`.
        webhook_secret_file: Option<SecretFile> = maybe(secret_file()), "FILE", "";

        /// Send webhooks only for rooms whose names match, with * for any text; users are the rooms
        /// @*. Without any, for all rooms. Repeat it, or separate by commas.
        webhook_room: Vec<Pattern> = many(room_pattern()), "PATTERN", "";

        /// A PEM file with the authorities that may have signed the backend's certificate, instead
        /// of the public ones. Only with `https://`.
        webhook_ca: Option<PathBuf> = maybe(file()), "FILE", "";
    }

    "Node" {
        /// How many events may wait for the node's dispatcher before readers pause; the broker's
        /// queue has the same size. Larger smooths bursts and costs memory.
        inbox: usize = one(count(64, 1_000_000)), "COUNT", "8192";

        /// The least important kind of log line written to standard output: off, error, warn,
        /// info or debug. (trace adds nothing: at that level libraries would log messages.)
        log_level: LevelFilter = one(log_level()), "LEVEL", "info";
    }
}

/// How many seconds' worth of commands a session may send at once.
pub(crate) const COMMAND_BURST: u64 = 2;

/// How many seconds' worth of bytes a session may send at once.
pub(crate) const BYTE_BURST: u64 = 4;

/// How many messages a room may keep.
fn log_size() -> ValueParser<usize> {
    count(1, 100_000)
}

/// How long a room may keep its messages.
fn log_age() -> ValueParser<Duration> {
    time(SECOND, 720 * HOUR)
}

impl Config {
    /// The configuration of a TOML text, whose keys are the names of the options without the
    /// dashes: the content of the file that `--config` names.
    ///
    /// # Errors
    /// An invalid text, every refused value, or else every contradiction of two values.
    ///
    /// ```
    /// use switchboard::Config;
    ///
    /// let config = Config::from_toml(
    ///     r#"
    ///     listen = "127.0.0.1:9091"
    ///     redis = "redis://127.0.0.1:6379/0"
    ///     history = ["chat.*=500/1h"]
    ///     "#,
    /// )?;
    /// # assert_eq!(config.listen.port(), 9091);
    /// # Ok::<(), switchboard::ConfigError>(())
    /// ```
    pub fn from_toml(text: &str) -> Result<Self, ConfigError> {
        let (path, mut values) = (PathBuf::from("TOML"), Values::default());
        sources::from_file(text, &path, &Self::specs(), &mut values)
            .map_err(|reason| ConfigError::File { path, reason })?;
        Self::checked(values, Vec::new())
    }

    /// The checked configuration of these texts, completed.
    ///
    /// # Errors
    /// Every refused value; if there is none, every contradiction of two values.
    fn checked(mut values: Values, warnings: Vec<String>) -> Result<Self, ConfigError> {
        let Some(mut config) = Self::take(&mut values) else {
            return Err(ConfigError::Invalid(values.problems));
        };
        config.complete();
        config.check()?;
        config.warnings = warnings;
        config.warnings.extend(config.caution());
        Ok(config)
    }

    /// Checks that every number is within its range, and that no two options contradict each other,
    /// such as an address for other machines and clients that are not authenticated.
    /// [`Server::start`](crate::Server::start) calls it.
    ///
    /// # Errors
    /// Every number out of range; if there is none, every contradiction.
    pub fn check(&self) -> Result<(), ConfigError> {
        let mut problems = self.out_of_range();
        if problems.is_empty() {
            problems = self.contradictions();
        }
        if problems.is_empty() {
            return Ok(());
        }
        Err(ConfigError::Invalid(problems))
    }

    /// The effective configuration as a TOML file, in the order of the options, with the warnings
    /// and the limits that depend on others as comments and without passwords.
    pub fn to_toml(&self) -> String {
        let warnings = self.warnings.iter().map(|warning| format!("# {warning}\n"));
        let lines = self
            .show()
            .into_iter()
            .map(|(key, value)| format!("{key} = {value}\n"));
        warnings.chain(lines).chain(self.default_limits()).collect()
    }

    /// Completes what depends on the machine and on other options.
    pub(crate) fn complete(&mut self) {
        if self.node.is_empty() {
            self.node = default_label(self.listen.port());
        }
    }

    /// Whether the node is in open mode: no keys for tokens are configured, so clients are not
    /// authenticated. Then the limits per client are off unless they are configured.
    pub fn is_open(&self) -> bool {
        self.token_secret_file.is_none() && self.token_key.is_empty()
    }

    /// Commands a session may send per second; 0 for no limit.
    pub fn session_commands(&self) -> usize {
        self.commands_per_second.unwrap_or(self.unless_open(100))
    }

    /// Bytes a session may send per second; 0 for no limit.
    pub fn session_bytes(&self) -> usize {
        self.bytes_per_second.unwrap_or(self.unless_open(256 * KIB))
    }

    /// Connections of one client address; 0 for no limit.
    pub fn address_connections(&self) -> usize {
        self.max_connections_per_address
            .unwrap_or(self.unless_open(1024))
    }

    fn unless_open(&self, limit: usize) -> usize {
        if self.is_open() { 0 } else { limit }
    }

    /// The limits that are not configured, with their effective values, as comments. They are not
    /// printed as keys: an operator that adds keys for tokens to the printed file needs the
    /// defaults that apply then.
    fn default_limits(&self) -> impl Iterator<Item = String> {
        let address = self.address_connections().to_string();
        let commands = self.session_commands().to_string();
        let bytes = numbers::show_size(self.session_bytes());
        let limits = [
            (
                "max-connections-per-address",
                self.max_connections_per_address,
                address,
            ),
            ("commands-per-second", self.commands_per_second, commands),
            ("bytes-per-second", self.bytes_per_second, bytes),
        ];
        let unset = limits.into_iter().filter(|(_, set, _)| set.is_none());
        unset.map(|(name, _, value)| format!("# {name} = {value}\n"))
    }
}

impl Default for Config {
    /// Every option at its default.
    fn default() -> Self {
        Self::take(&mut Values::default()).expect("the defaults are valid")
    }
}

/// The host name and the port, in the letters a label may have.
fn default_label(port: u16) -> String {
    let name = rustix::system::uname();
    let host = name.nodename().to_string_lossy();
    let plain = host
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' });
    // 58 leaves room for the longest port.
    format!("{}-{port}", plain.take(58).collect::<String>())
}

#[cfg(test)]
mod tests;
