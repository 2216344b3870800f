//! What a client asks and how it is answered: most at once, publishing and older history when the broker has answered.

use std::sync::Arc;

use super::desk::Pending;
use super::presence::Inquiry;
use super::{Dispatcher, Now};
use crate::broker::{Page, Publication, PublishKey, Range, Read, Refused, Request, Sender};
use crate::id::{Position, RoomName, SessionId, Ticket};
use crate::identity::Action;
use crate::protocol::{Code, Command, CommandError, Publish, Reply, RequestId};

/// Commands of one session that wait for the broker at most. Far more than a client needs in flight; it bounds what a stranger
/// can make the node remember.
const PENDING_PER_SESSION: u32 = 1024;

/// Commands of all sessions that wait for the broker at most: about 16 MiB.
const PENDING: usize = 65_536;

impl Dispatcher {
    pub(super) fn on_command(
        &mut self,
        now: Now,
        session: SessionId,
        id: Option<RequestId>,
        command: Command,
    ) {
        // A session that was disconnected may have spoken before it heard of it.
        let Some(speaker) = self.sessions.get(&session) else {
            return;
        };
        let outcome = match command {
            Command::Ping => {
                self.reply(session, id, &Reply::Pong);
                Ok(())
            }
            Command::Join { room, since } => self.on_join(now, session, id, &room, since),
            Command::Leave { room } if speaker.is_in_by_name(&room) => Err(CommandError::new(
                Code::Forbidden,
                "your connections are in your personal room for as long as they last",
            )),
            Command::Leave { room } => {
                self.on_leave(session, &room);
                self.reply(session, id, &Reply::Left { room: &room });
                Ok(())
            }
            Command::Publish(publish) => self.on_publish(now, session, id, publish),
            Command::History {
                room,
                before,
                limit,
            } => self.on_history(session, id, room, before, limit),
            Command::Members { room, after, limit } => {
                let asked = Inquiry {
                    session,
                    id,
                    room,
                    after,
                    limit,
                };
                self.on_members(now, asked)
            }
        };
        if let Err(error) = outcome {
            self.reply(session, id, &Reply::Error(&error));
        }
    }

    fn on_publish(
        &mut self,
        now: Now,
        session: SessionId,
        id: Option<RequestId>,
        publish: Publish,
    ) -> Result<(), CommandError> {
        let Publish {
            room,
            key,
            data,
            ephemeral,
            others,
        } = publish;
        self.judge(session, Action::Publish, &room)?;
        let speaker = self.sessions.get(&session);
        let identity = speaker.and_then(|speaker| speaker.identity.as_ref());
        let user = identity.map(|identity| identity.user.clone());
        let key = key.map(|key| PublishKey {
            publisher: user.clone(),
            key,
        });
        let sender = Sender {
            incarnation: self.desk.settings.incarnation,
            session,
        };
        let except = others.then_some(sender);
        let publication = Arc::new(Publication {
            user,
            time: now.unix_ms,
            except,
            data,
        });
        let waiting = Pending::Publish {
            session,
            id,
            room: room.clone(),
            ephemeral,
        };
        let ticket = self.wait(session, waiting)?;
        let publish = crate::broker::Publish {
            ticket,
            room,
            key,
            ephemeral,
            publication,
        };
        self.desk.requests.push(Request::Publish(publish));
        Ok(())
    }

    fn on_history(
        &mut self,
        session: SessionId,
        id: Option<RequestId>,
        room: RoomName,
        before: Option<u64>,
        limit: usize,
    ) -> Result<(), CommandError> {
        self.judge(session, Action::History, &room)?;
        if let Some(page) = self.recent_page(&room, before, limit) {
            self.reply_history(session, id, &room, Ok(page));
            return Ok(());
        }
        let ticket = self.wait(
            session,
            Pending::History {
                session,
                id,
                room: room.clone(),
            },
        )?;
        let read = Read {
            ticket,
            room,
            range: Range::Before(before),
            limit,
        };
        self.desk.requests.push(Request::Read(read));
        Ok(())
    }

    /// Remembers who waits for an answer of the broker, within the bounds.
    pub(super) fn wait(
        &mut self,
        session: SessionId,
        waiting: Pending,
    ) -> Result<Ticket, CommandError> {
        if self.desk.pending.len() >= PENDING {
            return Err(Refused::Unavailable.into());
        }
        if let Some(speaker) = self.sessions.get_mut(&session) {
            if speaker.pending >= PENDING_PER_SESSION {
                return Err(CommandError::new(
                    Code::Limit,
                    "1024 of your commands wait for an answer; wait for some of them",
                ));
            }
            speaker.pending += 1;
        }
        Ok(self.desk.ticket(waiting))
    }

    pub(super) fn on_published(&mut self, ticket: Ticket, result: Result<Position, Refused>) {
        let Some(Pending::Publish {
            session,
            id,
            room,
            ephemeral,
        }) = self.desk.pending.remove(&ticket)
        else {
            return;
        };
        self.answered(session);
        match result {
            Ok(position) => {
                self.desk.metrics.published_total.add(1);
                let position = (!ephemeral).then_some(position);
                self.reply(
                    session,
                    id,
                    &Reply::Published {
                        room: &room,
                        position,
                    },
                );
            }
            Err(refused) => self.reply(session, id, &Reply::Error(&refused.into())),
        }
    }

    pub(super) fn answered(&mut self, session: SessionId) {
        if let Some(speaker) = self.sessions.get_mut(&session) {
            speaker.pending -= 1;
        }
    }

    pub(super) fn reply_history(
        &mut self,
        session: SessionId,
        id: Option<RequestId>,
        room: &RoomName,
        result: Result<Page, Refused>,
    ) {
        let mut page = match result {
            Ok(page) => page,
            Err(refused) => return self.reply(session, id, &Reply::Error(&refused.into())),
        };
        // What does not fit into one answer is left out at the older end: the client pages backwards.
        let mut bytes = 0;
        let fits = |(_, publication): &&(u64, Arc<Publication>)| {
            bytes += publication.weight();
            bytes <= self.desk.settings.outbox_bytes / 4
        };
        let kept = page.messages.iter().rev().take_while(fits).count().max(1);
        self.desk.said += bytes;
        page.messages
            .drain(..page.messages.len().saturating_sub(kept));
        let oldest = page
            .messages
            .first()
            .map_or(page.first, |(offset, _)| *offset);
        let (position, more) = (page.top, oldest > page.first);
        self.reply(
            session,
            id,
            &Reply::History {
                room,
                position,
                messages: &page.messages,
                more,
            },
        );
    }

    /// The messages below `before`, if all of them that were asked for are at hand.
    fn recent_page(&mut self, name: &RoomName, before: Option<u64>, limit: usize) -> Option<Page> {
        let (room, _) = self.room_named(name)?;
        let (track, recent) = (&room.state.track, &room.state.recent);
        let top = track.position().filter(|_| track.is_settled())?;
        let end = before.unwrap_or(u64::MAX).min(top.offset + 1);
        let start = end.checked_sub(limit as u64).filter(|start| *start > 1)?;
        // The one before the page is here too: then there is more, for certain.
        let first = start - 1;
        let run = recent.run_at(first).filter(|run| run.covers(end - 1))?;
        let messages = run
            .before(end, limit)
            .map(|(offset, said)| (offset, said.clone()));
        Some(Page {
            top,
            first,
            messages: messages.collect(),
        })
    }
}
