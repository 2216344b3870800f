//! Who is here. [`LocalPresence`] knows which users have sessions of this node in which rooms, and
//! what of it must be announced; [`MemberList`] knows who is in one room over all nodes, and what
//! of its changes the room's members must be told.

mod local;
mod member_list;

use std::time::Duration;

pub use local::LocalPresence;
pub use member_list::{ListQuery, MemberChange, MemberList, fit};

use crate::model::id::RoomName;
use crate::model::pattern::Switches;

/// What the node does about presence.
#[derive(Clone, Debug)]
pub struct PresenceSettings {
    /// How long somebody who has left may take to come back unnoticed.
    pub grace: Duration,
    /// In which rooms members are told who joins and leaves.
    pub events: Switches,
    /// Bytes of the lists of members that the node keeps for all its rooms.
    pub memory: usize,
}

impl Default for PresenceSettings {
    /// As a node has it that is told nothing: a grace of 5 s, events in all rooms, 64 MiB.
    fn default() -> Self {
        Self {
            grace: Duration::from_secs(5),
            events: Switches::default(),
            memory: 64 << 20,
        }
    }
}

impl PresenceSettings {
    /// Whether members of the room are told who joins and leaves.
    pub fn has_events(&self, room: &RoomName) -> bool {
        self.events.is_on(room)
    }
}
