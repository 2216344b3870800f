//! The contenders, and how each is started.

use std::process::Command;

use super::{centrifugo, nchan, npm};
use crate::support::Outcome;
use crate::support::dialogue::Dialogue;
use crate::support::machine::Role;
use crate::support::server::{Kind, Server, free_port};

/// A contender.
pub enum Contender {
    Ours,
    Limit(Kind),
    Peer(Peer),
}

/// A peer's server.
pub struct Peer {
    pub name: &'static str,
    pub dialogue: Dialogue,
    /// How it is started on a port, alone or with the Redis on another port; an error, if it is not
    /// installed.
    pub command: fn(u16, Option<u16>) -> Outcome<Command>,
}

/// In the order of the table.
pub const CONTENDERS: [Contender; 8] = [
    Contender::Limit(Kind::Plain),
    Contender::Limit(Kind::Merging),
    Contender::Ours,
    Contender::Peer(npm::UWEBSOCKETS),
    Contender::Peer(nchan::NCHAN),
    Contender::Peer(centrifugo::CENTRIFUGO),
    Contender::Peer(npm::SOCKET_IO),
    Contender::Peer(npm::WS),
];

impl Contender {
    pub fn name(&self) -> &'static str {
        match self {
            Contender::Ours => Kind::Node.name(),
            Contender::Limit(kind) => kind.name(),
            Contender::Peer(peer) => peer.name,
        }
    }

    /// Why it cannot be started; nothing, if it can.
    pub fn missing(&self) -> Option<String> {
        match self {
            Contender::Peer(peer) => (peer.command)(0, None).err().map(|why| why.to_string()),
            _ => None,
        }
    }

    /// Starts a node of it.
    pub fn start(&self, redis: Option<&Server>, role: Role) -> Outcome<Server> {
        match (self, redis) {
            (Contender::Limit(kind), redis) => Server::start_limit(*kind, redis, role),
            (Contender::Ours, Some(redis)) => Server::start_with_redis(redis, role),
            (Contender::Ours, None) => Server::start(Kind::Node),
            (Contender::Peer(peer), redis) => {
                let port = free_port()?;
                let redis = redis.map(|redis| redis.address.port());
                let command = (peer.command)(port, redis)?;
                Server::start_other(command, port, role, peer.dialogue)
            }
        }
    }
}
