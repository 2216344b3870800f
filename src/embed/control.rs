//! Commands of the embedding program about a user's connections, on every node.

use super::{Handle, room_name};
use crate::dispatcher::Now;
use crate::model::control::{ControlAction, ControlCommand, Cutoff};
use crate::model::id::{RoomName, UserName};
use crate::model::publication::Refused;
use crate::protocol::{Code, Command, CommandError, Reply};

impl Handle {
    /// Ends the user's connections on every node, with the close code 3007: their clients may
    /// reconnect. It returns when the command is published to the nodes, which carry it out within
    /// moments.
    ///
    /// # Errors
    /// Those of [`Handle`].
    pub async fn disconnect_user(&self, user: &str) -> Result<(), CommandError> {
        self.control(user, ControlAction::Disconnect).await
    }

    /// Revokes the tokens that the user has been issued up to now, and ends the connections that
    /// have one. The revocation is stored for `token_lifetime`.
    ///
    /// # Errors
    /// Those of [`Handle`].
    pub async fn revoke_tokens(&self, user: &str) -> Result<(), CommandError> {
        let cutoff = Cutoff::at(Now::read().unix_ms);
        self.control(user, ControlAction::Revoke(cutoff)).await
    }

    /// Makes the user's connections members of a room, whatever their rights.
    ///
    /// # Errors
    /// Those of [`Handle`].
    pub async fn join_user(&self, user: &str, room: &str) -> Result<(), CommandError> {
        let action = ControlAction::Join(chosen_room(room)?);
        self.control(user, action).await
    }

    /// Removes the user's connections from a room. They may join it again, if their rights allow
    /// it.
    ///
    /// # Errors
    /// Those of [`Handle`].
    pub async fn remove_user(&self, user: &str, room: &str) -> Result<(), CommandError> {
        let action = ControlAction::Leave(chosen_room(room)?);
        self.control(user, action).await
    }

    async fn control(&self, user: &str, action: ControlAction) -> Result<(), CommandError> {
        let user = UserName::new(user)?;
        let command = Command::Control(Box::new(ControlCommand { user, action }));
        let read = |reply: &Reply<'_>| matches!(reply, Reply::CommandAccepted { .. }).then_some(());
        self.call(command, Refused::Unknown, read).await
    }
}

/// A room that a user can be added to or removed from.
fn chosen_room(name: &str) -> Result<RoomName, CommandError> {
    let room = room_name(name)?;
    if room.is_personal() {
        let reason = "a user is in its own personal room always, and in no other's";
        return Err(CommandError::new(Code::Forbidden, reason));
    }
    Ok(room)
}
