//! The rules of an embedding program, in addition to tokens and rights: functions that may refuse a
//! connection, a join or a publish of a client.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::http::RequestHead;
use crate::metrics::Metric;
use crate::model::id::{RoomName, UserName};
use crate::model::publication::Payload;
use crate::protocol::{Code, CommandError};

/// Why a hook refuses: a sentence for the developer of the client, who receives it.
///
/// ```
/// use switchboard::Reason;
///
/// let fixed = Reason::from("the room is closed at night");
/// let made = Reason::from(format!("the room is closed until {}:00", 8));
/// # drop((fixed, made));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason(Cow<'static, str>);

impl From<&'static str> for Reason {
    fn from(reason: &'static str) -> Self {
        Self(reason.into())
    }
}

impl From<String> for Reason {
    fn from(reason: String) -> Self {
        Self(reason.into())
    }
}

impl From<Reason> for CommandError {
    fn from(reason: Reason) -> Self {
        Self::new(Code::Forbidden, reason.0)
    }
}

impl From<Reason> for Cow<'static, str> {
    fn from(reason: Reason) -> Self {
        reason.0
    }
}

/// A client is about to open a WebSocket. Its handshake is valid, and its token too, if it has one.
pub struct ConnectAttempt<'a> {
    /// The user of the token in the handshake. `None` for a client that signs in later or never.
    pub user: Option<&'a UserName>,
    /// The client's address, as named by trusted proxies.
    pub address: IpAddr,
    pub(crate) request: &'a RequestHead,
}

impl<'a> ConnectAttempt<'a> {
    /// The first value of a header field, such as `cookie`; the name in lower case.
    pub fn header(&self, name: &str) -> Option<&'a str> {
        self.request.headers(name).next()
    }

    /// The query of the request's target, without the `?`.
    pub fn query(&self) -> Option<&'a str> {
        self.request.query.as_deref()
    }
}

/// A client is about to join a room, or to read its messages or members.
#[derive(Clone, Copy, Debug)]
pub struct JoinAttempt<'a> {
    /// `None` for an anonymous client.
    pub user: Option<&'a UserName>,
    pub room: &'a RoomName,
}

/// A client is about to publish.
#[derive(Clone, Copy, Debug)]
pub struct PublishAttempt<'a> {
    /// `None` for an anonymous client.
    pub user: Option<&'a UserName>,
    pub room: &'a RoomName,
    pub data: &'a Payload,
    /// Whether the room does not store it.
    pub ephemeral: bool,
}

type ConnectHook = dyn Fn(&ConnectAttempt<'_>) -> Result<(), Reason> + Send + Sync;
type JoinHook = dyn Fn(&JoinAttempt<'_>) -> Result<(), Reason> + Send + Sync;
type PublishHook = dyn Fn(&PublishAttempt<'_>) -> Result<(), Reason> + Send + Sync;

/// Rules of the program about its clients, for [`Server::start_with`](crate::Server::start_with).
/// They come after tokens and rights and cannot allow what these refuse. The program's own calls,
/// the HTTP API and commands about users are not asked about.
///
/// A hook must be quick, because the dispatcher of the node waits for it: look up a map, and
/// neither wait for a lock that is held for long nor do I/O. A hook that panics refuses, and is
/// counted in the metric `panics_total`.
///
/// ```
/// use switchboard::Hooks;
///
/// let hooks = Hooks::default()
///     .join(|attempt| match (attempt.room.as_str(), attempt.user) {
///         ("staff", None) => Err("sign in first".into()),
///         _ => Ok(()),
///     })
///     .publish(|attempt| match attempt.data.to_string().contains("spam") {
///         true => Err("no advertisements here".into()),
///         false => Ok(()),
///     });
/// # drop(hooks);
/// ```
#[derive(Default)]
pub struct Hooks {
    connect: Option<Box<ConnectHook>>,
    join: Option<Box<JoinHook>>,
    publish: Option<Box<PublishHook>>,
}

impl Hooks {
    /// Called for each WebSocket handshake, before it is answered. A refusal is 403 with the
    /// reason. It runs in the task of the connection, of which there are many at once.
    #[must_use]
    pub fn connect(
        mut self,
        hook: impl Fn(&ConnectAttempt<'_>) -> Result<(), Reason> + Send + Sync + 'static,
    ) -> Self {
        self.connect = Some(Box::new(hook));
        self
    }

    /// Called for each join, `history` and `members` of a client: what can read a room. A refusal
    /// is the error `forbidden` with the reason. A user is in its personal room without a join.
    #[must_use]
    pub fn join(
        mut self,
        hook: impl Fn(&JoinAttempt<'_>) -> Result<(), Reason> + Send + Sync + 'static,
    ) -> Self {
        self.join = Some(Box::new(hook));
        self
    }

    /// Called for each publish of a client. A refusal is the error `forbidden` with the reason.
    #[must_use]
    pub fn publish(
        mut self,
        hook: impl Fn(&PublishAttempt<'_>) -> Result<(), Reason> + Send + Sync + 'static,
    ) -> Self {
        self.publish = Some(Box::new(hook));
        self
    }

    /// Whether the client may connect.
    pub(crate) fn check_connect(
        &self,
        attempt: &ConnectAttempt<'_>,
        panics: &Metric,
    ) -> Result<(), Reason> {
        self.connect
            .as_ref()
            .map_or(Ok(()), |hook| guarded(panics, || hook(attempt)))
    }

    /// Whether the client may join or read the room.
    pub(crate) fn check_join(
        &self,
        attempt: &JoinAttempt<'_>,
        panics: &Metric,
    ) -> Result<(), Reason> {
        self.join
            .as_ref()
            .map_or(Ok(()), |hook| guarded(panics, || hook(attempt)))
    }

    /// Whether the client may publish this.
    pub(crate) fn check_publish(
        &self,
        attempt: &PublishAttempt<'_>,
        panics: &Metric,
    ) -> Result<(), Reason> {
        self.publish
            .as_ref()
            .map_or(Ok(()), |hook| guarded(panics, || hook(attempt)))
    }
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hooks")
            .field("connect", &self.connect.is_some())
            .field("join", &self.join.is_some())
            .field("publish", &self.publish.is_some())
            .finish()
    }
}

/// A panic of a hook is a refusal: it must not end the dispatcher, and with it the node.
fn guarded(panics: &Metric, hook: impl FnOnce() -> Result<(), Reason>) -> Result<(), Reason> {
    catch_unwind(AssertUnwindSafe(hook)).unwrap_or_else(|_| {
        panics.add(1);
        Err("the server failed to check this".into())
    })
}
