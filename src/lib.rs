//! Switchboard is a distributed WebSocket server: a client may plug into any node and reaches everyone, and nothing said is
//! lost, doubled or out of order. This page is the map of the house; each file says at its head what lives in it.
//!
//! # The walk
//!
//! ```text
//!             ┌──────────────────────────────── one node ────────────────────────────────┐
//!  socket ─▶ http ─▶ handshake ─▶ reader ──Event──▶ ┌────────────┐ ──Request──▶ ┌────────┐
//!                                                   │ dispatcher │              │ broker │ ◀─▶ Redis
//!  socket ◀──frames─── writer ◀──────outbox───────── └────────────┘ ◀─Event───── └────────┘
//!            per connection: reader and writer         one per node             one per node
//! ```
//!
//! Bytes come in at one door, become a command, an event, a change, and leave through an outbox or the broker. A
//! publication goes to the broker first and comes back by the room's topic like everyone else's; that is why all nodes
//! and clients see one order.
//!
//! # The floors
//!
//! A file knows only files of floors below its own; tasks of one floor know each other by channels alone.
//!
//! | floor | files | what they may do |
//! |---|---|---|
//! | 4 | `main`, this page | start and end the process |
//! | 3 wiring | [`server`], [`shutdown`] | build the channels and tasks of a node |
//! | 2 tasks | [`connection`], [`dispatcher`], [`broker`] and its two kinds, [`webhooks`] | wait |
//! | 1 logic | [`http`], [`handshake`], [`auth`], [`pages`], [`api`], [`exposition`], [`report`], [`rooms`], [`track`], [`history`], [`presence`], [`control`], [`revocations`], [`session`], [`limits`] | compute: no socket, no clock (`now` is an argument), and no waiting but on an outbox |
//! | 0 words | [`id`], [`pattern`], [`secret`], [`identity`], [`rights`], [`publication`], [`member`], [`census`], [`notice`], [`retention`], [`protocol`], [`disconnect`], [`keys`], [`config`], [`metrics`], [`process`], [`readiness`], [`logger`], [`runtime`], [`tls`] | be named |
//!
//! Each foreign world has one place: the runtime in [`runtime`], tungstenite in [`connection`], Redis in [`broker::redis`], the JSON of
//! clients in [`protocol::native`], tokens in [`auth`], the JSON between nodes in [`broker::wire`] and [`control`] and of them in [`report`], the standard output in [`logger`],
//! HTTP towards others in [`webhooks::post`], TLS in [`tls`].
//!
//! # What is always true
//!
//! 1. Only the dispatcher changes rooms and sessions. It waits on its inbox and on nothing else.
//! 2. An outbox is bounded; a full one ends that session alone.
//! 3. A publication is encoded once per protocol spoken in its room and shared by every outbox.
//! 4. A node follows a room with its first local member and unfollows it after its last.
//! 5. A session sees a room in the order of offsets, without a hole, or is told that its position is lost.
//! 6. Stopping is dropping, in order: the drain empties the outboxes; then go the listener, the dispatcher with its handle
//!    of the broker, the inbox. Each task ends because what it waits for is gone.
//! 7. What fails in one connection ends there; a dispatcher, a broker or a deliverer of webhooks that fails ends the process with an error.
//!
//! # What is absent on purpose
//!
//! A web framework (the door reads heads and refuses), compression (a proxy's work, and a way to exhaust memory), TLS towards
//! clients (likewise), a lock or a queue per room (the dispatcher is one task), local delivery before the broker (two
//! nodes would see two orders), and a fallback to memory when Redis is away (a cluster that splits in silence).

#![forbid(unsafe_code)]
// The documentation is for those who work on the house: it is made with its private parts.
#![allow(rustdoc::private_intra_doc_links)]

pub mod api;
pub mod auth;
pub mod broker;
pub mod census;
pub mod config;
pub mod connection;
pub mod control;
pub mod disconnect;
pub mod dispatcher;
pub mod epochs;
pub mod exposition;
pub mod handshake;
pub mod history;
pub mod http;
pub mod id;
pub mod identity;
pub mod keys;
pub mod limits;
pub mod logger;
pub mod member;
pub mod metrics;
pub mod notice;
pub mod pages;
pub mod pattern;
pub mod presence;
pub mod process;
pub mod protocol;
pub mod publication;
pub mod readiness;
pub mod report;
pub mod retention;
pub mod revocations;
pub mod rights;
pub mod rooms;
pub mod runtime;
pub mod secret;
pub mod server;
pub mod session;
pub mod shutdown;
pub mod tls;
pub mod track;
pub mod webhooks;
