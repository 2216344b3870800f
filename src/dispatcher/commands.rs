//! Commands of clients and API calls. Most are answered at once; a publish and a read of older
//! history are answered when the broker has replied.

use std::sync::Arc;
use std::time::Duration;

use super::turn::{MembersQuery, Pending, ReplyTo};
use super::{Dispatcher, Now};
use crate::api;
use crate::broker::{Page, Publication, PublishKey, Publisher, Range, Read, Refused, Request};
use crate::model::epochs::Ends;
use crate::model::id::{Position, RoomName, SessionId, Ticket};
use crate::model::identity::Action;
use crate::protocol::{Code, Command, CommandError, Publish, Reply, RequestId};

/// Maximum number of commands of one session that wait for the broker. Far more than a client needs
/// in flight; it bounds the memory that one client can take.
const PENDING_PER_SESSION: u32 = 1024;

/// Maximum number of commands of all sessions and API calls that wait for the broker: about 16 MiB.
const PENDING: usize = 65_536;

/// Maximum number of API calls among them, so that a backend's burst leaves room for clients.
const PENDING_OF_CALLS: usize = PENDING / 4;

/// A publication of a client or a backend, before it has a ticket.
struct NewPublication {
    room: RoomName,
    key: Option<PublishKey>,
    ephemeral: bool,
    publication: Arc<Publication>,
}

impl Dispatcher {
    pub(super) fn on_command(
        &mut self,
        now: Now,
        session: SessionId,
        id: Option<RequestId>,
        command: Command,
    ) {
        // A command can arrive after its session was disconnected.
        let Some(client) = self.sessions.get(&session) else {
            return;
        };
        let reply_to = ReplyTo::Session { session, id };
        let outcome = match command {
            Command::Ping => {
                self.reply(&reply_to, &Reply::Pong);
                Ok(())
            }
            Command::Join { room, since } => self.on_join(now, session, id, &room, since),
            Command::Leave { room } if client.is_personal_room(&room) => Err(CommandError::new(
                Code::Forbidden,
                "you cannot leave your personal room",
            )),
            Command::Leave { room } => {
                self.on_leave(session, &room);
                self.reply(&reply_to, &Reply::Left { room: &room });
                Ok(())
            }
            Command::Publish(publish) => self.on_publish(now, session, &reply_to, publish),
            Command::History {
                room,
                before,
                limit,
            } => match self.authorize(session, Action::History, &room) {
                Ok(()) => self.history(&reply_to, room, before, limit),
                Err(denied) => Err(denied.into()),
            },
            Command::Members { room, after, limit } => {
                let query = MembersQuery {
                    reply_to: reply_to.clone(),
                    room,
                    after,
                    limit,
                };
                self.on_members(now, session, query)
            }
        };
        if let Err(error) = outcome {
            self.reply(&reply_to, &Reply::Error(&error));
        }
    }

    /// An API call was authorized when it was received: its key permits everything.
    pub(super) fn on_call(&mut self, now: Now, reply_to: ReplyTo, command: api::Command) {
        let outcome = match command {
            api::Command::Publish(publish) => {
                let api::Publish {
                    room,
                    key,
                    ephemeral,
                    publication,
                } = publish;
                let publisher = Publisher::Backend;
                let new = NewPublication {
                    room,
                    key: key.map(|key| PublishKey { publisher, key }),
                    ephemeral,
                    publication,
                };
                self.publish(&reply_to, new)
            }
            api::Command::History {
                room,
                before,
                limit,
            } => self.history(&reply_to, room, before, limit),
            api::Command::Members { room, after, limit } => {
                let reply_to = reply_to.clone();
                self.list_members(MembersQuery {
                    reply_to,
                    room,
                    after,
                    limit,
                })
            }
            api::Command::Census(question) => self.cluster_query(&reply_to, question),
            api::Command::ControlCommand(command) => self.command(now, &reply_to, command),
        };
        if let Err(error) = outcome {
            self.reply(&reply_to, &Reply::Error(&error));
        }
    }

    /// A client publishes under its own user name, and its keys are its own.
    fn on_publish(
        &mut self,
        now: Now,
        session: SessionId,
        reply_to: &ReplyTo,
        publish: Publish,
    ) -> Result<(), CommandError> {
        self.authorize(session, Action::Publish, &publish.room)?;
        let client = self.sessions.get(&session);
        let identity = client.and_then(|client| client.identity.as_ref());
        let user = identity.map(|identity| identity.user.clone());
        let publisher = Publisher::from(user.clone());
        let publication = Publication {
            user,
            time: now.unix_ms,
            except: publish.others.then(|| self.sender(session)),
            data: publish.data,
        };
        let new = NewPublication {
            room: publish.room,
            key: publish.key.map(|key| PublishKey { publisher, key }),
            ephemeral: publish.ephemeral,
            publication: Arc::new(publication),
        };
        self.publish(reply_to, new)
    }

    fn publish(&mut self, reply_to: &ReplyTo, new: NewPublication) -> Result<(), CommandError> {
        let NewPublication {
            room,
            key,
            ephemeral,
            publication,
        } = new;
        let waiting = Pending::Publish {
            reply_to: reply_to.clone(),
            room: room.clone(),
            ephemeral,
        };
        let ticket = self.wait(reply_to, waiting)?;
        let source = match reply_to {
            ReplyTo::Session { session, .. } => Some(*session),
            ReplyTo::Call(_) => None,
        };
        let publish = crate::broker::Publish {
            ticket,
            source,
            room,
            key,
            ephemeral,
            publication,
        };
        self.turn.requests.push(Request::Publish(publish));
        Ok(())
    }

    fn history(
        &mut self,
        reply_to: &ReplyTo,
        room: RoomName,
        before: Option<u64>,
        limit: usize,
    ) -> Result<(), CommandError> {
        if let Some(page) = self.recent_page(&room, before, limit) {
            self.reply_history(reply_to, &room, Ok(page));
            return Ok(());
        }
        let waiting = Pending::History {
            reply_to: reply_to.clone(),
            room: room.clone(),
        };
        let ticket = self.wait(reply_to, waiting)?;
        let read = Read {
            ticket,
            room,
            range: Range::Before(before),
            limit,
        };
        self.turn.requests.push(Request::Read(read));
        Ok(())
    }

    /// Registers a request that waits for a broker reply, within the bounds.
    pub(super) fn wait(
        &mut self,
        reply_to: &ReplyTo,
        waiting: Pending,
    ) -> Result<Ticket, CommandError> {
        if self.turn.pending.len() >= PENDING {
            return Err(Refused::Unavailable.into());
        }
        match reply_to {
            ReplyTo::Session { session, .. } => {
                let pending = self.sessions.get_mut(session).map(|own| &mut own.pending);
                if let Some(pending) = pending {
                    if *pending >= PENDING_PER_SESSION {
                        let reason =
                            "1024 of your commands wait for replies; wait for some of them";
                        return Err(CommandError::new(Code::Limit, reason));
                    }
                    *pending += 1;
                }
            }
            ReplyTo::Call(_) if self.turn.calls >= PENDING_OF_CALLS => {
                return Err(Refused::Unavailable.into());
            }
            ReplyTo::Call(_) => self.turn.calls += 1,
        }
        Ok(self.turn.ticket(waiting))
    }

    /// Releases the slot of a request whose reply has arrived.
    pub(super) fn release(&mut self, reply_to: &ReplyTo) {
        match reply_to {
            ReplyTo::Session { session, .. } => {
                if let Some(client) = self.sessions.get_mut(session) {
                    client.pending -= 1;
                }
            }
            ReplyTo::Call(_) => self.turn.calls -= 1,
        }
    }

    /// Publishes the node's report. No reply target waits for the result.
    pub(super) fn on_report(&mut self, publication: Arc<Publication>) {
        let ticket = self.turn.ticket(Pending::Report);
        let publish = crate::broker::Publish {
            ticket,
            room: RoomName::of_reports(),
            source: None,
            key: None,
            ephemeral: true,
            publication,
        };
        self.turn.requests.push(Request::Publish(publish));
    }

    pub(super) fn on_published(&mut self, ticket: Ticket, result: Result<Position, Refused>) {
        let (reply_to, room, ephemeral) = match self.turn.pending.remove(&ticket) {
            Some(Pending::Publish {
                reply_to,
                room,
                ephemeral,
            }) => (reply_to, room, ephemeral),
            Some(Pending::ControlCommand { reply_to, command }) => {
                return self.on_command_published(&reply_to, &command, result);
            }
            Some(Pending::Republish(user)) => return self.on_republished(user, result.is_ok()),
            _ => return,
        };
        self.release(&reply_to);
        match result {
            Ok(position) => {
                self.turn.metrics.published_total.add(1);
                let published = Reply::Published {
                    room: &room,
                    position: (!ephemeral).then_some(position),
                };
                self.reply(&reply_to, &published);
            }
            Err(refused) => self.reply(&reply_to, &Reply::Error(&refused.into())),
        }
    }

    pub(super) fn reply_history(
        &mut self,
        reply_to: &ReplyTo,
        room: &RoomName,
        result: Result<Page, Refused>,
    ) {
        let mut page = match result {
            Ok(page) => page,
            Err(refused) => return self.reply(reply_to, &Reply::Error(&refused.into())),
        };
        // Messages that do not fit into one reply are left out at the older end: the client pages
        // backwards.
        let mut bytes = 0;
        let fits = |(_, publication): &&(u64, Arc<Publication>)| {
            bytes += publication.weight();
            bytes <= self.turn.settings.outbox_bytes / 4
        };
        let kept = page.messages.iter().rev().take_while(fits).count().max(1);
        self.turn.encoded_bytes += bytes;
        page.messages
            .drain(..page.messages.len().saturating_sub(kept));
        let oldest = page
            .messages
            .first()
            .map_or(page.first, |(offset, _)| *offset);
        let (position, more) = (page.top, oldest > page.first);
        let history = Reply::History {
            room,
            position,
            messages: &page.messages,
            more,
        };
        self.reply(reply_to, &history);
    }

    /// The messages below `before`, if all requested ones are among the recent messages.
    fn recent_page(&mut self, name: &RoomName, before: Option<u64>, limit: usize) -> Option<Page> {
        let (room, turn) = self.room_named(name)?;
        room.expire_recent(turn);
        let (sequencer, recent) = (&room.state.sequencer, &room.state.recent);
        let top = sequencer.position().filter(|_| sequencer.is_settled())?;
        let end = before.unwrap_or(u64::MAX).min(top.offset + 1);
        let start = end.checked_sub(limit as u64).filter(|start| *start > 1)?;
        // The message before the page is here too, so there certainly is more.
        let first = start - 1;
        let run = recent.run_at(first).filter(|run| run.covers(end - 1))?;
        let messages = run
            .before(end, limit)
            .map(|(offset, publication)| (offset, publication.clone()));
        Some(Page {
            top,
            first,
            ends: Ends::default(),
            expires_in: Duration::ZERO,
            messages: messages.collect(),
        })
    }
}
