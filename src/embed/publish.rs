//! Publishes of the embedding program.

use std::sync::Arc;

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use super::{Handle, bad_request, room_name};
use crate::dispatcher::Now;
use crate::model::id::{Position, UserName};
use crate::model::publication::{KEY_BYTES, Publication, Publish, PublishKey, Publisher, Refused};
use crate::protocol::depth::is_deeper;
use crate::protocol::{Command, CommandError, Reply};

/// What a publish may have besides its room and data. The default has neither.
///
/// ```
/// use switchboard::PublishOptions;
///
/// let options = PublishOptions::default().key("order-17-paid").user("ada");
/// # drop(options);
/// ```
#[derive(Clone, Debug, Default)]
pub struct PublishOptions {
    key: Option<String>,
    user: Option<String>,
}

impl PublishOptions {
    /// Makes a retry idempotent: for five minutes, a publish to the same room with the same key
    /// adds nothing and returns the position of the first. 1 to 64 bytes. All programs and backends
    /// of a cluster share their keys; clients have keys of their own.
    #[must_use]
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// The user that members see as the author: 1 to 64 of `A-Z a-z 0-9 _ . : -`. Without one the
    /// message has no author.
    #[must_use]
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.user = Some(user.into());
        self
    }
}

impl Handle {
    /// Publishes a message to a room, and returns its position once the broker has stored it. Every
    /// member receives it, on every node. `@ada` is the personal room of the user `ada`, and so
    /// this is how a user is sent a direct message.
    ///
    /// `data` becomes JSON of at most `max_message` bytes and a depth of at most `max_depth`.
    /// Order is promised for publishes that are sent after the previous one has returned.
    ///
    /// # Errors
    /// Those of [`Handle`]. After `Unknown`, a retry with the same key publishes exactly once.
    ///
    /// ```no_run
    /// # async fn example(server: &switchboard::Server) -> Result<(), switchboard::Error> {
    /// use switchboard::PublishOptions;
    ///
    /// let position = server.publish("lobby", "hello", PublishOptions::default()).await?;
    /// println!("message {} of the room", position.offset);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn publish(
        &self,
        room: &str,
        data: impl Serialize,
        options: PublishOptions,
    ) -> Result<Position, CommandError> {
        let command = self.publish_command(room, data, options, false)?;
        self.call(command, Refused::Unknown, |reply| match reply {
            Reply::Published { position, .. } => *position,
            _ => None,
        })
        .await
    }

    /// Publishes a message that the room does not store: it has no offset, and a member that is not
    /// connected at this moment never receives it. For what is soon out of date, like the position
    /// of a cursor.
    ///
    /// # Errors
    /// Those of [`Handle`], and `BadRequest` for options with a key.
    pub async fn publish_ephemeral(
        &self,
        room: &str,
        data: impl Serialize,
        options: PublishOptions,
    ) -> Result<(), CommandError> {
        if options.key.is_some() {
            return Err(bad_request(
                "an ephemeral publish is not kept and takes no key",
            ));
        }
        let command = self.publish_command(room, data, options, true)?;
        self.call(command, Refused::Unknown, |reply| {
            matches!(reply, Reply::Published { .. }).then_some(())
        })
        .await
    }

    fn publish_command(
        &self,
        room: &str,
        data: impl Serialize,
        options: PublishOptions,
        ephemeral: bool,
    ) -> Result<Command, CommandError> {
        let user = options.user.as_deref().map(UserName::new).transpose()?;
        Ok(Command::Publish(Box::new(Publish {
            room: room_name(room)?,
            key: options.key.as_deref().map(publish_key).transpose()?,
            condition: None,
            ephemeral,
            others: false,
            publication: Arc::new(Publication {
                user,
                time: Now::read().unix_ms,
                except: None,
                event: None,
                data: self.data(data)?.into(),
            }),
        })))
    }

    /// The JSON of a message, within the bounds for messages of clients: an outbox must have room
    /// for several.
    fn data(&self, data: impl Serialize) -> Result<Box<RawValue>, CommandError> {
        let json = to_raw_value(&data)
            .map_err(|error| bad_request(format!("the data cannot be JSON: {error}")))?;
        let limits = &self.node.limits;
        if json.get().len() > limits.message {
            let most = limits.message;
            return Err(bad_request(format!("the data has more than {most} bytes")));
        }
        if is_deeper(json.get(), limits.depth) {
            let most = limits.depth;
            return Err(bad_request(format!(
                "the data is nested more than {most} deep"
            )));
        }
        Ok(json)
    }
}

fn publish_key(key: &str) -> Result<PublishKey, CommandError> {
    if !(1..=KEY_BYTES).contains(&key.len()) {
        return Err(bad_request("a key must have 1 to 64 bytes"));
    }
    Ok(PublishKey {
        publisher: Publisher::Backend,
        key: key.into(),
    })
}
