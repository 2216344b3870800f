//! Switchboard is a distributed WebSocket server with rooms, history and recovery: a client
//! connects to any node and receives the messages of its rooms in order and without duplicates,
//! whichever nodes the publishers are on. This crate is the program `switchboard`, and the library
//! for programs that have a node inside.
//!
//! ```no_run
//! use switchboard::{Config, PublishOptions, RoomEvent, Server};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let server = Server::start(&Config::default())?;
//! println!("clients connect to ws://{}/ws", server.address());
//! let mut lobby = server.subscribe("lobby", None).await?;
//! server.publish("lobby", "hello", PublishOptions::default()).await?;
//! if let Some(Ok(RoomEvent::Message(message))) = lobby.next().await {
//!     println!("{}", message.data);
//! }
//! server.drain().await;
//! # Ok(())
//! # }
//! ```
//!
//! - [`Config`] has a public field for each option of the program, and reads its file.
//! - [`Server`] starts, ends and owns a node; a [`Handle`] calls it from any task: to publish, to
//!   subscribe, to query rooms and members, and to end a user's connections.
//! - [`Hooks`] refuse connections, joins and publishes of clients by rules of the program.
//! - A [`Subscription`] delivers the messages of a room, as a client receives them.
//!
//! `docs/embedding.md` is the guide, and `examples/` has a program for each runtime. The protocol
//! of clients, the HTTP API and the operation of nodes are those of the program `switchboard`, and
//! `docs/` describes them.
//!
//! # Runtimes
//!
//! The features `rt-async-std` (the default), `rt-smol` and `rt-tokio` choose the runtime of a
//! node's sockets, timers and tasks; turn the default features off for another than the default. A
//! program on any runtime may await the calls. With `rt-tokio` the node uses the tokio runtime in
//! which [`Server::start`] is called, else one of its own.
//!
//! # Stability
//!
//! Everything on this page is the public API and follows semantic versioning. All other modules are
//! internal, hidden here, and change at any time.

#![forbid(unsafe_code)]
// The documentation is for developers of the crate too: it is built with its private items.
#![allow(rustdoc::private_intra_doc_links)]

#[doc(hidden)]
pub mod api;
#[doc(hidden)]
pub mod auth;
#[doc(hidden)]
pub mod broker;
#[doc(hidden)]
pub mod cli;
#[doc(hidden)]
pub mod client;
#[doc(hidden)]
pub mod config;
#[doc(hidden)]
pub mod dispatcher;
#[doc(hidden)]
pub mod embed;
#[doc(hidden)]
pub mod http;
#[doc(hidden)]
pub mod logger;
#[doc(hidden)]
pub mod metrics;
#[doc(hidden)]
pub mod model;
#[doc(hidden)]
pub mod outbox;
#[doc(hidden)]
pub mod presence;
#[doc(hidden)]
pub mod protocol;
#[doc(hidden)]
pub mod runtime;
#[doc(hidden)]
pub mod server;
#[doc(hidden)]
pub mod transport;
#[doc(hidden)]
pub mod webhooks;

pub use auth::{ConnectAttempt, Hooks, JoinAttempt, PublishAttempt, Reason};
pub use config::{Config, ConfigError, Problem};
pub use embed::{Handle, HistoryPage, PublishOptions, Subscription, SubscriptionError};
pub use model::cluster_query::{Connection, ConnectionPage, RoomCount, RoomPage};
pub use model::id::{Epoch, NameError, Position, RoomName, UserName};
pub use model::member::{Info, Member, MemberPage};
pub use model::publication::{Payload, Sender};
pub use model::room_event::{Delivery, RoomEvent};
pub use protocol::{Code as ErrorCode, CommandError as Error};
pub use server::{Server, StartError};
