//! Publishes of the embedding program.

use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use super::{Handle, bad_request, room_name};
use crate::dispatcher::Now;
use crate::model::id::{Position, UserName};
use crate::model::json_text;
use crate::model::publication::{
    EVENT_BYTES, KEY_BYTES, Payload, Publication, Publish, PublishKey, Publisher, Refused,
};
use crate::protocol::depth::is_deeper;
use crate::protocol::{Command, CommandError, Reply};

/// What a publish may have besides its room and data. The default has none of it.
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
    event: Option<String>,
    condition: Option<Position>,
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

    /// The user that members see as the author, 1 to 255 bytes. Without one the
    /// message has no author.
    #[must_use]
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.user = Some(user.into());
        self
    }

    /// The name of an event, which members receive beside the data: 1 to 200 bytes.
    #[must_use]
    pub fn event(mut self, event: impl Into<String>) -> Self {
        self.event = Some(event.into());
        self
    }

    /// Compare-and-append: publishes only if this is the newest position of the room, and is a
    /// `Conflict` if anything else was published since. [`HistoryPage::position`] is the newest
    /// position, and so is what the previous publish returned. It does not apply to a retry whose
    /// key is known.
    ///
    /// [`HistoryPage::position`]: crate::HistoryPage::position
    #[must_use]
    pub fn condition(mut self, newest: Position) -> Self {
        self.condition = Some(newest);
        self
    }

    /// Whether these options have a meaning only for a stored message.
    fn is_for_stored(&self) -> bool {
        self.key.is_some() || self.condition.is_some()
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
        let data = self.json(data)?.into();
        self.publish_payload(room, data, options).await
    }

    /// Publishes bytes instead of JSON, at most `max_message` of them. A client of the JSON
    /// protocol receives them in Base64, in the field `binary` instead of `data`.
    ///
    /// # Errors
    /// Those of [`publish`](Self::publish). Also `Unavailable` while the cluster has nodes of a
    /// version that cannot read them.
    pub async fn publish_binary(
        &self,
        room: &str,
        data: impl Into<Bytes>,
        options: PublishOptions,
    ) -> Result<Position, CommandError> {
        let data = data.into();
        self.check_size(data.len())?;
        let data = Payload::Binary(data);
        self.publish_payload(room, data, options).await
    }

    async fn publish_payload(
        &self,
        room: &str,
        data: Payload,
        options: PublishOptions,
    ) -> Result<Position, CommandError> {
        let command = publish_command(room, data, options, false)?;
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
    /// Those of [`Handle`], and `BadRequest` for options with a key or a condition.
    pub async fn publish_ephemeral(
        &self,
        room: &str,
        data: impl Serialize,
        options: PublishOptions,
    ) -> Result<(), CommandError> {
        if options.is_for_stored() {
            return Err(bad_request(
                "an ephemeral publish is not kept and takes neither a key nor a condition",
            ));
        }
        let command = publish_command(room, self.json(data)?.into(), options, true)?;
        self.call(command, Refused::Unknown, |reply| {
            matches!(reply, Reply::Published { .. }).then_some(())
        })
        .await
    }

    /// The JSON of a message, within the bounds for messages of clients: an outbox must have room
    /// for several.
    fn json(&self, data: impl Serialize) -> Result<Box<RawValue>, CommandError> {
        let json = to_raw_value(&data)
            .map_err(|error| bad_request(format!("the data cannot be JSON: {error}")))?;
        self.check_size(json.get().len())?;
        let most = self.node.limits.depth;
        if is_deeper(json.get(), most) {
            return Err(bad_request(format!(
                "the data is nested more than {most} deep"
            )));
        }
        json_text::check(json.get()).map_err(|error| bad_request(error.to_string()))?;
        Ok(json)
    }

    fn check_size(&self, bytes: usize) -> Result<(), CommandError> {
        let most = self.node.limits.message;
        if bytes > most {
            return Err(bad_request(format!("the data has more than {most} bytes")));
        }
        Ok(())
    }
}

fn publish_command(
    room: &str,
    data: Payload,
    options: PublishOptions,
    ephemeral: bool,
) -> Result<Command, CommandError> {
    Ok(Command::Publish(Box::new(Publish {
        room: room_name(room)?,
        key: options.key.as_deref().map(publish_key).transpose()?,
        condition: options.condition,
        ephemeral,
        others: false,
        publication: Arc::new(Publication {
            user: options.user.as_deref().map(UserName::new).transpose()?,
            time: Now::read().unix_ms,
            except: None,
            event: options.event.map(event_name).transpose()?,
            data,
        }),
    })))
}

fn event_name(name: String) -> Result<Arc<str>, CommandError> {
    if !(1..=EVENT_BYTES).contains(&name.len()) {
        return Err(bad_request("the name of an event must have 1 to 200 bytes"));
    }
    Ok(name.into())
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
