//! Presence as plain logic. [`LocalPresence`] counts the sessions of this node per user and room,
//! and decides what to announce. [`MemberList`] is the list of one room's members over all nodes,
//! and decides which changes the room's members receive.

mod local;
mod member_list;

use std::time::Duration;

pub(crate) use local::LocalPresence;
pub(crate) use member_list::{ListQuery, MemberChange, MemberList, fit};

use crate::model::id::RoomName;
use crate::model::pattern::Switches;

/// Settings of presence.
#[derive(Clone, Debug)]
pub struct PresenceSettings {
    /// How long a user without sessions still counts as present, so that a reload announces
    /// nothing.
    pub grace: Duration,
    /// Rooms whose members receive joins and leaves.
    pub events: Switches,
    /// Memory for the member lists of all rooms, in bytes.
    pub memory: usize,
}

impl Default for PresenceSettings {
    /// The defaults of a node: a grace of 5 s, events in all rooms, 64 MiB.
    fn default() -> Self {
        Self {
            grace: Duration::from_secs(5),
            events: Switches::default(),
            memory: 64 << 20,
        }
    }
}

impl PresenceSettings {
    /// Whether members of the room receive joins and leaves.
    pub fn has_events(&self, room: &RoomName) -> bool {
        self.events.is_on(room)
    }
}
