//! Who a client is: what it shows to say so, and what has come of that. A token is shown once and
//! forgotten; what is kept of it is the user, its rights and its times.

use std::sync::Arc;

use crate::model::id::{RoomName, UserName};
use crate::model::member::Info;
use crate::model::pattern::Pattern;
use crate::model::secret::Secret;

/// By how much the clocks of issuers and nodes may differ, in milliseconds.
pub const LEEWAY: u64 = 5_000;

/// A date of a token (RFC 7519 section 2), which is a number of seconds, perhaps with a fraction,
/// in milliseconds. The conversion saturates; what is no number becomes 0.
pub fn milliseconds(seconds: f64) -> u64 {
    (seconds * 1000.0) as u64
}

/// What a client shows to say who it is.
#[derive(Debug)]
pub enum Credentials {
    /// A name, believed in open mode only.
    User {
        user: UserName,
        /// What others may see beside the name.
        info: Option<Info>,
    },
    /// A signed token (RFC 7519), not looked at yet.
    Token(Secret<String>),
}

/// A user that has shown who it is. The user of a session never changes; the rest does with each
/// new token.
#[derive(Clone, Debug)]
pub struct Identity {
    pub user: UserName,
    pub grants: Grants,
    /// What others may see beside the name, as the token has it.
    pub info: Option<Info>,
    /// What the token says of its times; none in open mode.
    pub times: Option<Times>,
}

/// The times of a token, in milliseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// When it was issued, if it says.
    pub issued: Option<u64>,
    pub expires: u64,
    /// When a connection ends that has shown nothing newer: a little after `expires`, since clocks
    /// differ.
    pub ends: u64,
}

/// What a client does with a room. Each is judged for itself, whenever it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// To hear what is said; with it comes what was missed.
    Join,
    Publish,
    /// To read what was said before.
    History,
    /// To see who is there.
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

/// What a token lets its user do, by patterns of room names.
#[derive(Clone, Debug, Default)]
pub struct Grants([Arc<[Pattern]>; 4]);

impl Grants {
    /// The patterns of each action, in the order of [`Action::ALL`].
    pub fn new(patterns: [Arc<[Pattern]>; 4]) -> Self {
        Self(patterns)
    }

    pub fn allow(&self, action: Action, room: &RoomName) -> bool {
        let patterns = &self.0[action as usize];
        patterns.iter().any(|pattern| pattern.fits_room(room))
    }
}

impl Identity {
    /// A user in open mode, which is whoever it says it is.
    pub fn believed(user: UserName, info: Option<Info>) -> Self {
        Self {
            user,
            grants: Grants::default(),
            info,
            times: None,
        }
    }
}
