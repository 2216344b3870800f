//! A client of the native protocol, for the commands of the program and for tests: one connection
//! that reconnects by itself, rooms that are joined again from their position, and publishes that
//! are repeated under one key until they are answered. It makes the promises of the client module
//! in `www/`: messages come in the order of their offsets, each once, and a loss is an event.
//!
//! [`state`] has the state and no I/O, [`connection`] connects, and [`task`] moves frames between
//! the two. [`http`] sends requests to the HTTP API.

mod backoff;
mod connection;
pub(crate) mod http;
mod state;
mod task;

use std::path::PathBuf;
use std::time::Instant;

use serde_json::value::RawValue;

use crate::config::ServerUrl;
use crate::model::id::{self, Position, RoomName, UserName};
use crate::model::member::{MemberPage, MembersQuery};
use crate::model::publication::HistoryQuery;
use crate::model::room_event::RoomEvent;
use crate::model::secret::Secret;
use crate::protocol::CommandError;
use crate::protocol::native::receive::HistoryMessages;
use crate::runtime;
use crate::runtime::tls::{self, TlsError};

use state::{ClientCall, ClientState};

/// How a client signs in.
#[derive(Clone, Debug)]
pub enum ClientCredentials {
    /// A token, where nodes have keys for tokens.
    Token(Secret<String>),
    /// A name, where nodes are in open mode.
    User(UserName),
}

/// Where a client connects, and as whom.
#[derive(Clone, Debug)]
pub struct ClientSettings {
    pub url: ServerUrl,
    /// `None`: anonymous.
    pub credentials: Option<ClientCredentials>,
    /// A file with the authorities for `wss`; `None`: the public ones.
    pub authorities: Option<PathBuf>,
}

/// Why a request of the client failed, or the client ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// The server refused the command.
    #[error("{0}")]
    Refused(CommandError),
    /// The server refused the client, and a new connection would be refused too.
    #[error("the server ended the connection for good: {reason} (code {code})")]
    Closed {
        /// The close code.
        code: u16,
        reason: String,
    },
    /// The address is not one of a node, or the node refused the handshake.
    #[error("{0}")]
    Handshake(String),
    /// The server has removed the client from the room.
    #[error("removed from the room: {0}")]
    Removed(String),
    /// There was no answer for as long as a server remembers the key of a publish.
    #[error("no server answered in time; it may or may not have happened")]
    Unknown,
    #[error("the system has no random numbers: {0}")]
    Random(String),
    /// The client was closed.
    #[error("the client is closed")]
    Ended,
}

/// The states of the connection, for those who watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConnectionState {
    Connected {
        /// The label of the node.
        node: String,
    },
    /// There is no connection, and another attempt follows.
    Lost {
        /// Why, as a part of a sentence.
        reason: String,
    },
}

/// What a publish may have besides its room and data.
#[derive(Clone, Debug, Default)]
pub struct ClientPublish {
    /// 1 to 64 bytes; `None`: a random one, unless it is ephemeral.
    pub key: Option<String>,
    pub ephemeral: bool,
}

/// Receives what happens in a room. The error is the last item. Dropping it leaves the room.
pub type RoomEvents = flume::Receiver<Result<RoomEvent, ClientError>>;

/// A running client. Dropping it ends it.
#[derive(Clone, Debug)]
pub struct Client {
    inputs: flume::Sender<ClientCall>,
}

impl Client {
    /// Starts the client, which connects and reconnects until it is dropped or is refused for good.
    /// `states` receives each change of its connection; a full or dropped receiver misses some.
    ///
    /// # Errors
    /// The file of authorities cannot be used.
    pub fn start(
        settings: ClientSettings,
        states: flume::Sender<ConnectionState>,
    ) -> Result<Self, TlsError> {
        let connector = settings.url.tls().then(|| {
            let authorities = settings.authorities.as_deref();
            tls::connector(authorities)
        });
        let connector = connector.transpose()?;
        // As many requests wait at most for a slow connection; a caller waits for its turn.
        let (inputs, received) = flume::bounded(64);
        let session = ClientState::new(Instant::now(), settings.credentials);
        let target = connection::DialTarget {
            url: settings.url,
            connector,
        };
        runtime::spawn(task::run(session, target, received, states));
        Ok(Self { inputs })
    }

    /// Publishes JSON, and returns the position when a node has stored it; `None` for an ephemeral
    /// one. It is repeated under its key over reconnects. Publishes to one room are sent one after
    /// the other, each after the answer to the former.
    ///
    /// # Errors
    /// The server refuses it, refuses the client, or does not answer for four and a half minutes.
    pub async fn publish(
        &self,
        room: RoomName,
        data: Box<RawValue>,
        mut options: ClientPublish,
    ) -> Result<Option<Position>, ClientError> {
        if options.key.is_none() && !options.ephemeral {
            options.key = Some(random_key()?);
        }
        self.ask(|answer| ClientCall::Publish {
            room,
            data,
            options,
            answer,
        })
        .await
    }

    /// Joins a room, from a position or from now, and returns where it stands and what follows. It
    /// stays joined over reconnects. The receiver is bounded: a client that does not read it stops
    /// reading its connection, and recovers when it goes on.
    ///
    /// # Errors
    /// The server refuses it.
    pub async fn join(
        &self,
        room: RoomName,
        since: Option<Position>,
    ) -> Result<(Position, RoomEvents), ClientError> {
        let (events, receiver) = flume::bounded(16);
        let joined = self.ask(|answer| ClientCall::Join {
            room,
            since,
            events,
            answer,
        });
        Ok((joined.await?, receiver))
    }

    /// A page of the messages that a room has stored.
    ///
    /// # Errors
    /// The server refuses it.
    pub async fn history(&self, query: HistoryQuery) -> Result<HistoryMessages, ClientError> {
        self.ask(|answer| ClientCall::History { query, answer })
            .await
    }

    /// A page of the users in a room.
    ///
    /// # Errors
    /// The server refuses it.
    pub async fn members(&self, query: MembersQuery) -> Result<MemberPage, ClientError> {
        self.ask(|answer| ClientCall::Members { query, answer })
            .await
    }

    async fn ask<T>(
        &self,
        input: impl FnOnce(AnswerSender<T>) -> ClientCall,
    ) -> Result<T, ClientError> {
        let (answer, answered) = flume::bounded(1);
        let sent = self.inputs.send_async(input(answer)).await;
        sent.map_err(|_| ClientError::Ended)?;
        answered
            .recv_async()
            .await
            .unwrap_or(Err(ClientError::Ended))
    }
}

/// A key that no other publish has.
fn random_key() -> Result<String, ClientError> {
    let half = || id::random().map_err(|error| ClientError::Random(error.to_string()));
    Ok(format!("{:016x}{:016x}", half()?, half()?))
}

/// Receives the answer to one request.
type AnswerSender<T> = flume::Sender<Result<T, ClientError>>;
