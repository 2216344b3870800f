//! Switchboard is a distributed WebSocket server: a client connects to any node and reaches
//! everyone, and nothing acknowledged is lost, doubled or out of order. This page is an overview
//! of the crate; the head of each file describes its contents.
//!
//! # The path of a message
//!
//! ```text
//!             ┌──────────────────────────────── one node ────────────────────────────────┐
//!  socket ─▶ http ─▶ handshake ─▶ reader ──Event──▶ ┌────────────┐ ──Request──▶ ┌────────┐
//!                                                   │ dispatcher │              │ broker │◀▶ Redis
//!  socket ◀──frames─── writer ◀──────outbox───────── └────────────┘ ◀─Event───── └────────┘
//!            per connection: reader and writer         one per node             one per node
//! ```
//!
//! A publication goes to the broker first and returns by the topic of its room, to the publisher's
//! node like to all others: so all nodes and clients see one order.
//!
//! # The modules
//!
//! A module uses only those above it in this table; `tests/architecture.rs` checks it. Tasks
//! communicate through channels alone.
//!
//! | module | contains |
//! |---|---|
//! | [`model`] | the domain types: names, positions, publications, members, rights, revocations |
//! | [`runtime`] | async-std, smol and tokio behind one interface, TLS; the only place to name one |
//! | [`http`] | HTTP/1.1 as pure logic: heads, rules, targets, responses |
//! | [`logger`] | the log on standard output |
//! | [`outbox`] | the bounded queue of bytes between a session and its writer |
//! | [`protocol`] | commands, replies, pushes, close codes; the JSON of [`protocol::native`] |
//! | [`config`] | options, their sources and their value types |
//! | [`metrics`] | counters, histograms, the Prometheus text, the report of a node |
//! | [`auth`] | tokens and claims |
//! | [`broker`] | log, pub/sub and presence: the interface, [`broker::memory`], [`broker::redis`] |
//! | [`presence`] | the members of rooms on this node, and the list over all nodes |
//! | [`dispatcher`] | the single owner of sessions, rooms and positions |
//! | [`api`] | the HTTP API: routes, requests, responses |
//! | [`webhooks`] | delivery of webhook events |
//! | [`transport`] | one connection: HTTP phase, WebSocket reader and writer, limits, pages |
//! | [`server`] | listeners, accept loop, wiring, signals |
//! | [`cli`] | the command line: one file per subcommand |
//!
//! # Invariants
//!
//! 1. Only the dispatcher changes rooms and sessions. It waits on its inbox and on nothing else.
//! 2. An outbox is bounded; a full one ends that session alone.
//! 3. A publication is encoded once per protocol spoken in its room and shared by every outbox.
//! 4. A node follows a room with its first local member and unfollows it after its last.
//! 5. A session sees a room in the order of offsets, without a hole, or gets a gap.
//! 6. Stopping is dropping, in order: the drain empties the outboxes; then go the listener, the
//!    dispatcher with its handle of the broker, the inbox. Each task ends because what it waits for
//!    is gone.
//! 7. A failure in one connection ends that connection; a failure of the dispatcher, a broker or
//!    the webhook delivery ends the process with an error.
//!
//! # Absent on purpose
//!
//! A web framework (the HTTP phase reads heads and refuses), compression and TLS towards clients (a
//! proxy's work), a lock or a queue per room (the dispatcher is one task), local delivery before
//! the broker (two nodes would see two orders), and a fallback to memory when Redis is away (a
//! cluster would split in silence).

#![forbid(unsafe_code)]
// The documentation is for developers of the crate: it is built with its private items.
#![allow(rustdoc::private_intra_doc_links)]

pub mod api;
pub mod auth;
pub mod broker;
pub mod cli;
pub mod config;
pub mod dispatcher;
pub mod http;
pub mod logger;
pub mod metrics;
pub mod model;
pub mod outbox;
pub mod presence;
pub mod protocol;
pub mod runtime;
pub mod server;
pub mod transport;
pub mod webhooks;
