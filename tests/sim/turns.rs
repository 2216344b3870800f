//! The nodes' part of the world: their inputs, their turns and their writers.

use std::sync::Arc;

use switchboard::broker::Request;
use switchboard::dispatcher::{Event, Flow, ReplyTo};
use switchboard::model::id::SessionId;
use switchboard::model::identity::Identity;
use switchboard::protocol::RequestId;

use super::node::{Input, Node, PUBLISHES};
use super::world::{Delivery, SimEvent, TICK, World};

impl World {
    /// Closes the connection of a client that sends to a dead node.
    pub fn reject_input(&mut self, _: usize, input: Input) {
        if let Input::Accept { client, conn } | Input::Command { client, conn, .. } = input {
            self.later(2, SimEvent::Client(client, conn, Delivery::Closed(None)));
        }
    }

    pub fn handle_input(&mut self, index: usize, input: Input) {
        let now = self.instant();
        let node = &mut self.nodes[index];
        let life = node.life;
        let session_of = |node: &Node, client: usize, conn: u32| {
            let mut sessions = node.sessions.iter();
            let found =
                sessions.find(|(_, session)| session.client == client && session.conn == conn);
            found.map(|(id, _)| *id)
        };
        match input {
            Input::Tick => {
                node.inbox.push_back(Event::Tick);
                node.sub.topics.tick(now);
                self.ask_topics(index);
                self.tend_lease(index);
                self.later(TICK, SimEvent::Node(index, life, Input::Tick));
                self.repair_torn_logs();
            }
            Input::Accept { client, conn } => {
                node.accept(client, conn);
                self.later(1, SimEvent::Client(client, conn, Delivery::Opened));
            }
            Input::Command {
                client,
                conn,
                id,
                command,
            } => {
                if let Some(session) = session_of(node, client, conn) {
                    node.sessions[&session].outbox.note_received();
                    let (session, id) = (
                        SessionId(session),
                        Some(RequestId::from(u32::try_from(id).expect("few commands"))),
                    );
                    node.inbox.push_back(Event::Command {
                        reply_to: ReplyTo::Session { session, id },
                        command,
                    });
                }
            }
            Input::SignIn {
                client,
                conn,
                id,
                user,
            } => {
                if let Some(session) = session_of(node, client, conn) {
                    node.sessions[&session].outbox.note_received();
                    node.inbox.push_back(Event::Identified {
                        session: SessionId(session),
                        id: Some(RequestId::from(u32::try_from(id).expect("few commands"))),
                        identity: Arc::new(Identity::unverified(user, None)),
                    });
                }
            }
            Input::Pong { client, conn } => {
                if let Some(session) = session_of(node, client, conn) {
                    node.sessions[&session].outbox.note_received();
                }
            }
            Input::Closed { client, conn } => {
                if let Some(session) = session_of(node, client, conn) {
                    node.sessions.remove(&session);
                    node.inbox.push_back(Event::Closed {
                        session: SessionId(session),
                        close_reason: None,
                    });
                }
            }
            Input::Drain(time) => node.inbox.push_back(Event::Drain(time)),
            Input::Answer {
                link,
                number,
                answer,
            } => {
                let pipeline = &mut node.pipelines[answer.pipeline()];
                if pipeline.link == link
                    && let Some(pending) = pipeline.pending.remove(&number)
                {
                    node.inbox
                        .push_back(Event::Broker(pending.request.answer(answer)));
                }
            }
            Input::Push { link, push } => {
                if node.sub.link == link && !node.sub.half_open {
                    node.receive(push, now);
                    self.ask_topics(index);
                }
            }
            Input::Deadline { pipeline, number } => {
                let refused = node.pipelines[pipeline].expire(number);
                node.inbox.extend(refused.map(Event::Broker));
            }
            Input::PipelineUp { pipeline, link } => {
                if node.pipelines[pipeline].link == link {
                    node.pipelines[pipeline].up = true;
                    self.send_pending(index, pipeline);
                    if pipeline == PUBLISHES {
                        self.announce_all(index);
                    }
                }
            }
            Input::SubUp { link } => {
                if node.sub.link == link {
                    node.sub.up = true;
                    node.sub.asking = false;
                    self.ask_topics(index);
                }
            }
            Input::OverflowOver => node.overflow_over(),
        }
        self.wake(index);
    }

    pub fn wake(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        if !node.inbox.is_empty() && !node.turn_scheduled {
            node.turn_scheduled = true;
            let life = node.life;
            let delay = self.random.u64(..3);
            self.later(delay, SimEvent::Turn(index, life));
        }
    }

    pub fn turn(&mut self, index: usize) {
        self.nodes[index].turn_scheduled = false;
        if self.nodes[index].is_frozen(self.now) || !self.nodes[index].alive {
            return;
        }
        let clock = self.read_clock();
        loop {
            let node = &mut self.nodes[index];
            let inbox = &mut node.inbox;
            let flow = node
                .dispatcher
                .turn(clock, std::iter::from_fn(|| inbox.pop_front()));
            let requests: Vec<Request> = node.dispatcher.take_requests().collect();
            let more = !node.inbox.is_empty();
            node.assert_bounds();
            for request in requests {
                self.ask(index, request);
            }
            self.ask_topics(index);
            if flow == Flow::Ended {
                return self.exit(index);
            }
            let sessions: Vec<u64> = self.nodes[index].sessions.keys().copied().collect();
            for session in sessions {
                self.write_soon(index, session, more);
            }
            if self.nodes[index].inbox.is_empty() {
                return;
            }
        }
    }

    /// Runs the writer now or a little later.
    pub fn write_soon(&mut self, index: usize, id: u64, at_once: bool) {
        let Some(session) = self.nodes[index].sessions.get_mut(&id) else {
            return;
        };
        if session.is_hung_up() {
            let (client, conn) = (session.client, session.conn);
            self.later(1, SimEvent::Client(client, conn, Delivery::Closed(None)));
            return self.handle_input(index, Input::Closed { client, conn });
        }
        if at_once || session.scheduled || self.random.u8(..4) > 0 {
            return self.write(index, id);
        }
        session.scheduled = true;
        let (life, delay) = (self.nodes[index].life, self.random.u64(..10));
        self.later(delay, SimEvent::Writer(index, life, id));
    }

    pub fn write(&mut self, index: usize, id: u64) {
        let mut drained = false;
        loop {
            let delay = self.random.u64(..5);
            let Some(session) = self.nodes[index].sessions.get_mut(&id) else {
                break;
            };
            let Some(written) = session.write() else {
                break;
            };
            session.arrives_at = session.arrives_at.max(self.now + delay);
            let (at, client, conn) = (session.arrives_at, session.client, session.conn);
            drained |= written.drained;
            self.at(
                at,
                SimEvent::Client(client, conn, Delivery::Frames(written.frames)),
            );
            if let Some(close) = written.close {
                let code = u16::from_be_bytes([close[2], close[3]]);
                self.at(
                    at,
                    SimEvent::Client(client, conn, Delivery::Closed(Some(code))),
                );
            }
        }
        if drained {
            self.nodes[index]
                .inbox
                .push_back(Event::Drained(SessionId(id)));
            self.wake(index);
        }
    }
}
