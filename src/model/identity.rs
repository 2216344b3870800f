//! The identity of a client: its credentials, and the result of checking them. A token is checked
//! once and dropped; the session keeps the user, its rights and its times.

use std::sync::Arc;

use crate::model::id::{RoomName, UserName};
use crate::model::member::Info;
use crate::model::pattern::Pattern;
use crate::model::secret::Secret;

/// The greatest difference of the clocks of issuers and nodes, in milliseconds.
pub(crate) const LEEWAY: u64 = 5_000;

/// A date of a token (RFC 7519 section 2), which is a number of seconds, perhaps with a fraction,
/// in milliseconds. The conversion saturates; NaN becomes 0.
pub(crate) fn milliseconds(seconds: f64) -> u64 {
    (seconds * 1000.0) as u64
}

/// The credentials of a client.
#[derive(Debug)]
pub enum Credentials {
    /// A name, accepted in open mode only.
    User {
        user: UserName,
        /// Public, beside the name.
        info: Option<Info>,
    },
    /// A signed token (RFC 7519), not verified yet.
    Token(Secret<String>),
}

/// An authenticated user. The user of a session never changes; the other fields change with each
/// new token.
#[derive(Clone, Debug)]
pub struct Identity {
    pub user: UserName,
    pub grants: Grants,
    /// Public, beside the name; from the token.
    pub info: Option<Info>,
    /// The times of the token; none in open mode.
    pub times: Option<Times>,
}

/// The times of a token, in milliseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// When it was issued, if it has that claim.
    pub issued: Option<u64>,
    pub expires: u64,
    /// When a connection without a newer token ends: a little after `expires`, because clocks
    /// differ.
    pub ends: u64,
}

/// An action of a client in a room. Each is checked separately, every time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// To receive publications, also those that were missed.
    Join,
    Publish,
    /// To read earlier publications.
    History,
    /// To see the members.
    Members,
}

impl Action {
    pub const ALL: [Action; 4] = [
        Action::Join,
        Action::Publish,
        Action::History,
        Action::Members,
    ];
}

/// The actions that a token allows, by patterns of room names.
#[derive(Clone, Debug, Default)]
pub struct Grants([Arc<[Pattern]>; 4]);

impl Grants {
    /// The patterns of each action, in the order of [`Action::ALL`].
    pub fn new(patterns: [Arc<[Pattern]>; 4]) -> Self {
        Self(patterns)
    }

    /// The patterns of the rooms in which an action is allowed.
    pub(crate) fn patterns(&self, action: Action) -> &[Pattern] {
        &self.0[action as usize]
    }

    pub fn allow(&self, action: Action, room: &RoomName) -> bool {
        let patterns = self.patterns(action);
        patterns.iter().any(|pattern| pattern.fits_room(room))
    }
}

impl Identity {
    /// A user in open mode, whose name is not verified.
    pub fn unverified(user: UserName, info: Option<Info>) -> Self {
        Self {
            user,
            grants: Grants::default(),
            info,
            times: None,
        }
    }
}
