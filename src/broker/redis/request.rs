//! The requests that a pipeline sends: what each costs, whether it may be repeated, whose share of
//! the queue it takes, and what it results in.

use super::presence::agent::{PresenceCommand, PresenceReply};
use super::webhook_calls::{WebhookCall, WebhookEntries};
use crate::broker::{
    BrokerEvent, ClusterRequest, MembersRequest, PublishRequest, Range, Read, ReadRevocations,
    Refused, Revoke, Source,
};
use crate::model::cluster_query::ClusterQuery;
use crate::model::id::RoomName;

/// The most bytes of bodies in a page, so that one read neither blocks Redis nor fills memory.
pub(super) const PAGE_BYTES: usize = 512 << 10;

/// The bytes of a request and its answer without the entries of a page.
const BARE: usize = 256;

/// The cost of a message or a room in a page. Most messages are smaller, but Redis handles all
/// requests that arrived on one connection before it turns to the next, and 100 entries take 40 µs,
/// in which it serves no other client.
const ENTRY: usize = 1024;

/// The cost of a member in a page: its name and half of the longest `info`.
const MEMBER: usize = 256;

/// The cost of reading the largest set of revocations: ten thousand names and times.
const REVOCATIONS: usize = 256 << 10;

/// A request to Redis.
#[derive(Debug)]
pub enum RedisRequest {
    Publish(PublishRequest),
    Read(Read),
    Members(MembersRequest),
    ClusterQuery(ClusterRequest),
    Revoke(Revoke),
    ReadRevocations(ReadRevocations),
    /// A message to the node's own topic, to check that publishing and the subscription work. It
    /// has no result.
    Probe,
    /// A command of the presence agent, which sends it again itself if its effect is not known.
    Presence(PresenceCommand),
    /// A call of the webhook stream; likewise.
    Webhooks(WebhookCall),
}

/// The result of a request, for the task that submitted it.
#[derive(Debug)]
pub enum Completion {
    /// For the dispatcher.
    Event(BrokerEvent),
    Presence(PresenceCommand, PresenceReply),
    Webhooks(Result<WebhookEntries, Refused>),
}

impl Completion {
    /// The event for the dispatcher, if it is one.
    pub fn event(self) -> Option<BrokerEvent> {
        match self {
            Completion::Event(event) => Some(event),
            Completion::Presence(..) | Completion::Webhooks(_) => None,
        }
    }
}

impl RedisRequest {
    /// Its kind, for the log.
    pub fn kind(&self) -> &'static str {
        match self {
            RedisRequest::Publish(_) => "publish",
            RedisRequest::Read(_) => "read",
            RedisRequest::Members(_) => "members",
            RedisRequest::ClusterQuery(_) => "cluster query",
            RedisRequest::Revoke(_) => "revoke",
            RedisRequest::ReadRevocations(_) => "read revocations",
            RedisRequest::Probe => "probe",
            RedisRequest::Presence(_) => "presence",
            RedisRequest::Webhooks(_) => "webhook events",
        }
    }

    /// Whether the pipeline sends it again when its connection was lost.
    pub fn may_repeat(&self) -> bool {
        match self {
            RedisRequest::Publish(PublishRequest { publish, .. }) => {
                publish.key.is_some() && !publish.ephemeral
            }
            RedisRequest::Revoke(_) => true,
            request => request.is_read(),
        }
    }

    /// Whether it only reads.
    fn is_read(&self) -> bool {
        matches!(
            self,
            RedisRequest::Read(_)
                | RedisRequest::Members(_)
                | RedisRequest::ClusterQuery(_)
                | RedisRequest::ReadRevocations(_)
        )
    }

    /// Whether it matters that a request which failed may have had its effect. A read has none;
    /// presence commands and webhook calls are sent again, whatever a failed script has done.
    pub fn may_fail_in_part(&self) -> bool {
        match self {
            RedisRequest::Presence(_) | RedisRequest::Webhooks(_) => false,
            request => !request.is_read(),
        }
    }

    /// Whether its answer is only right while the lists of members in Redis are complete.
    pub fn reads_presence(&self) -> bool {
        matches!(
            self,
            RedisRequest::Members(_) | RedisRequest::ClusterQuery(_)
        )
    }

    /// Whether it ends with its connection, even if it was not sent. Its submitter decides anew:
    /// the presence agent first renews the lease, the deliverer of webhooks polls again.
    pub fn ends_with_connection(&self) -> bool {
        matches!(self, RedisRequest::Presence(_) | RedisRequest::Webhooks(_))
    }

    /// The room whose log or members are read.
    pub fn room_read(&self) -> Option<&RoomName> {
        match self {
            RedisRequest::Read(read) => Some(&read.room),
            RedisRequest::Members(members) => Some(&members.query.room),
            _ => None,
        }
    }

    /// The source whose share of the queue it takes.
    pub fn source(&self) -> Source {
        match self {
            RedisRequest::Publish(publish) => publish.source,
            RedisRequest::Read(read) => read.source,
            RedisRequest::Members(members) => members.source,
            RedisRequest::ClusterQuery(query) => query.source,
            RedisRequest::Revoke(revoke) => revoke.source,
            RedisRequest::ReadRevocations(_)
            | RedisRequest::Probe
            | RedisRequest::Presence(_)
            | RedisRequest::Webhooks(_) => Source::Node,
        }
    }

    /// The approximate memory it takes, in bytes.
    pub fn weight(&self) -> usize {
        match self {
            RedisRequest::Publish(publish) => publish.publish.publication.weight() + BARE,
            RedisRequest::Revoke(revoke) => revoke.cutoffs.len() * 96 + BARE,
            _ => BARE,
        }
    }

    /// The cost for Redis, as bytes on the wire: what the request carries, and what it asks for.
    pub fn cost(&self) -> usize {
        let answer = match self {
            RedisRequest::Read(Read {
                range: Range::Top, ..
            }) => 0,
            RedisRequest::Read(Read { limit, .. }) => limit.saturating_mul(ENTRY).min(PAGE_BYTES),
            RedisRequest::Members(members) => members.query.limit.saturating_mul(MEMBER),
            RedisRequest::ClusterQuery(ClusterRequest { query, .. }) => match query {
                ClusterQuery::Room(_) => 0,
                ClusterQuery::Rooms { limit, .. } => limit.saturating_mul(ENTRY),
                ClusterQuery::Connections { limit, .. } => limit.saturating_mul(MEMBER),
            },
            RedisRequest::ReadRevocations(_) => REVOCATIONS,
            _ => 0,
        };
        self.weight().saturating_add(answer)
    }

    /// The result if it was refused; a probe has none.
    pub fn refuse(self, why: Refused) -> Option<Completion> {
        // A read has no effect, so its outcome is never unknown.
        let why = match why {
            Refused::Unknown if self.is_read() => Refused::Unavailable,
            why => why,
        };
        let event = match self {
            RedisRequest::Publish(publish) => BrokerEvent::Published {
                ticket: publish.ticket,
                result: Err(why),
            },
            RedisRequest::Read(read) => BrokerEvent::Page {
                ticket: read.ticket,
                result: Err(why),
            },
            RedisRequest::Members(members) => BrokerEvent::MemberPage {
                ticket: members.ticket,
                result: Err(why),
            },
            RedisRequest::ClusterQuery(request) => BrokerEvent::QueryResult {
                ticket: request.ticket,
                result: Err(why),
            },
            RedisRequest::Revoke(revoke) => BrokerEvent::Revoked {
                ticket: revoke.ticket,
                result: Err(why),
            },
            RedisRequest::ReadRevocations(read) => BrokerEvent::Revocations {
                ticket: read.ticket,
                result: Err(why),
            },
            RedisRequest::Probe => return None,
            RedisRequest::Presence(command) => {
                let reply = match why {
                    Refused::Unknown => PresenceReply::Unanswered,
                    _ => PresenceReply::Refused,
                };
                return Some(Completion::Presence(command, reply));
            }
            RedisRequest::Webhooks(_) => return Some(Completion::Webhooks(Err(why))),
        };
        Some(Completion::Event(event))
    }
}
