//! Executes the steps of a schedule and injects its faults.

use std::time::Duration;

use switchboard::dispatcher::Event;

use super::faults::{Fault, Step};
use super::node::{Input, Node, PUBLISHES, READS};
use super::redis::Remains;
use super::world::{Delivery, SimEvent, World};

/// The end of a fault that lasts.
#[derive(Clone, Copy, Debug)]
pub enum FaultEnd {
    HalfOpen { node: usize, link: u32 },
    Slow { node: usize, link: usize },
    Stall { client: usize, conn: u32 },
}

impl World {
    pub fn step(&mut self, step: Step) {
        self.note(|| format!("--- {step:?}"));
        match step {
            Step::Publish { client, room } => {
                self.clients[client].publish(room, &mut self.random, &mut self.oracle);
                self.carry_out(client);
            }
            Step::Join { client, room } => {
                self.clients[client].join(room);
                self.carry_out(client);
            }
            Step::Leave { client, room } => {
                self.clients[client].leave(room, &mut self.oracle);
                self.carry_out(client);
            }
            Step::Rejoin { client, room } => {
                self.clients[client].rejoin(room);
                self.carry_out(client);
            }
            Step::History { client, room } => {
                self.clients[client].ask_history(room, &mut self.random);
                self.carry_out(client);
            }
            Step::Fault(fault) => self.inject(fault),
        }
    }

    fn inject(&mut self, fault: Fault) {
        let now = self.instant();
        match fault {
            Fault::CutSubscription { node, down } => self.cut_subscription(node, down),
            Fault::HalfOpen { node, time } => {
                let sub = &mut self.nodes[node].sub;
                sub.half_open = true;
                let link = sub.link;
                self.later(time, SimEvent::FaultEnds(FaultEnd::HalfOpen { node, link }));
            }
            Fault::Overflow { node, time } => {
                self.nodes[node].sub.overflowing = true;
                let life = self.nodes[node].life;
                self.later(time, SimEvent::Node(node, life, Input::OverflowOver));
            }
            Fault::CutPipeline {
                node,
                pipeline,
                down,
            } => self.cut_pipeline(node, pipeline, down),
            Fault::CutNode { node, down } => self.cut_node(node, down),
            Fault::RefuseReads { node, count } => self.nodes[node].fail_reads = count,
            Fault::Slow {
                node,
                link,
                delay,
                time,
            } => {
                self.set_delay(node, link, delay);
                self.later(time, SimEvent::FaultEnds(FaultEnd::Slow { node, link }));
            }
            Fault::FreezeNode { node, time } => {
                self.nodes[node].frozen_until = self.now + time;
                self.later(time, SimEvent::Thaw(node));
            }
            Fault::KillNode { node, down } if self.nodes[node].alive => self.kill(node, down),
            Fault::KillNode { .. } => {}
            Fault::DrainNode { node, .. } => {
                let drained = &mut self.nodes[node];
                if drained.alive && !drained.draining {
                    drained.draining = true;
                    let (life, time) = (drained.life, Duration::from_secs(1));
                    self.later(0, SimEvent::Node(node, life, Input::Drain(time)));
                }
            }
            Fault::FreezeStore { time } => self.redis.frozen_until = self.now + time,
            Fault::StoreAway { down } => self.store_away(down),
            Fault::EndEpochs { away, left } => {
                if away {
                    self.store_away(500);
                }
                for room in 0..self.names.len() {
                    self.redis.end_epoch(room, left, now);
                }
                self.redis.presence.clear(self.now);
            }
            Fault::EndEpoch { room, left } => self.redis.end_epoch(room, left, now),
            Fault::LoseTail { room } => {
                if self.redis.lose_tail(room) {
                    self.repair_torn_logs();
                }
            }
            Fault::StallClient { client, time } => self.stall(client, time),
            Fault::DropClient { client } => {
                if self.clients[client].is_connected() {
                    let conn = self.links[client].conn;
                    self.send_node(client, Input::Closed { client, conn });
                    self.with_client(client, |client, context| client.lost(None, None, context));
                }
            }
            Fault::BlackHole { client } => {
                self.links[client].black_holed = true;
                self.clients[client].disturb();
            }
            Fault::Burst {
                client,
                room,
                count,
            } => {
                self.clients[client].flood(room, count, &mut self.oracle);
                self.carry_out(client);
            }
        }
    }

    pub fn end_fault(&mut self, end: FaultEnd) {
        match end {
            FaultEnd::HalfOpen { node, link } => {
                if self.nodes[node].sub.link == link && self.nodes[node].sub.half_open {
                    self.cut_subscription(node, 20);
                }
            }
            FaultEnd::Slow { node, link } => {
                let delay = self.plan.sizes.delay;
                self.set_delay(node, link, delay);
            }
            FaultEnd::Stall { client, conn } => {
                let link = self.links[client];
                let sessions = self.nodes[link.node].sessions.iter_mut();
                let mut mine = sessions
                    .filter(|(_, session)| session.client == client && session.conn == conn);
                if let Some((id, session)) = mine.next() {
                    session.stalled = false;
                    let id = *id;
                    self.write(link.node, id);
                }
            }
        }
    }

    fn set_delay(&mut self, node: usize, link: usize, delay: u64) {
        match link {
            PUBLISHES | READS => self.nodes[node].pipelines[link].delay = delay,
            _ => self.nodes[node].sub.delay = delay,
        }
    }

    fn stall(&mut self, client: usize, time: u64) {
        let link = self.links[client];
        let node = &mut self.nodes[link.node];
        let mut sessions = node.sessions.values_mut();
        let mine = sessions.find(|session| session.client == client && session.conn == link.conn);
        if let Some(session) = mine {
            session.stalled = true;
            self.clients[client].disturb();
            let conn = link.conn;
            self.later(time, SimEvent::FaultEnds(FaultEnd::Stall { client, conn }));
        }
    }

    fn cut_subscription(&mut self, index: usize, down: u64) {
        let node = &mut self.nodes[index];
        node.sub.up = false;
        node.sub.half_open = false;
        node.sub.link += 1;
        node.sub.topics.lost();
        let (link, life) = (node.sub.link, node.life);
        for room in &mut self.redis.rooms {
            room.subscribers
                .retain(|subscriber| subscriber.node != index);
        }
        self.later(down, SimEvent::Node(index, life, Input::SubUp { link }));
    }

    fn cut_pipeline(&mut self, index: usize, pipeline: usize, down: u64) {
        let node = &mut self.nodes[index];
        let refused = node.pipelines[pipeline].cut();
        node.inbox.extend(refused.into_iter().map(Event::Broker));
        let (link, life) = (node.pipelines[pipeline].link, node.life);
        self.later(
            down,
            SimEvent::Node(index, life, Input::PipelineUp { pipeline, link }),
        );
        self.wake(index);
    }

    fn cut_node(&mut self, node: usize, down: u64) {
        self.cut_subscription(node, down);
        self.cut_pipeline(node, PUBLISHES, down);
        self.cut_pipeline(node, READS, down);
    }

    fn store_away(&mut self, down: u64) {
        for node in 0..self.nodes.len() {
            if self.nodes[node].alive {
                let jitter = self.random.u64(..100);
                self.cut_node(node, down + jitter);
            }
        }
    }

    pub fn thaw(&mut self, index: usize) {
        if self.nodes[index].is_frozen(self.now) {
            return;
        }
        for input in std::mem::take(&mut self.nodes[index].held) {
            self.handle_input(index, input);
        }
        let sessions: Vec<u64> = self.nodes[index].sessions.keys().copied().collect();
        for session in sessions {
            self.write(index, session);
        }
        self.wake(index);
    }

    /// A drained node has closed all connections and exits.
    pub fn exit(&mut self, index: usize) {
        let down = self.random.u64(..1_000);
        self.kill(index, down);
    }

    fn kill(&mut self, index: usize, down: u64) {
        let node = &mut self.nodes[index];
        node.alive = false;
        node.frozen_until = 0;
        node.held.clear();
        node.life += 1;
        let life = node.life;
        for session in std::mem::take(&mut node.sessions).into_values() {
            // Some clients see the socket close; for others the connection just falls silent.
            let (client, conn) = (session.client, session.conn);
            if self.random.u8(..4) > 0 {
                let delay = self.random.u64(1..100);
                self.later(
                    delay,
                    SimEvent::Client(client, conn, Delivery::Closed(None)),
                );
            } else if self.links[client].conn == conn {
                self.clients[client].disturb();
            }
        }
        for room in &mut self.redis.rooms {
            room.subscribers
                .retain(|subscriber| subscriber.node != index);
        }
        self.later(down.max(1), SimEvent::Restart(index, life));
    }

    pub fn restart(&mut self, index: usize, life: u32) {
        if self.nodes[index].life != life || self.nodes[index].alive {
            return;
        }
        let seed = self.random.u64(..);
        self.nodes[index] = Node::new(self.read_clock(), index, life, &self.plan.sizes, seed);
        let phase = self.random.u64(..250);
        self.later(phase, SimEvent::Node(index, life, Input::Tick));
    }

    /// A node that delivered what the log has lost detects the lost tail. If no such node is left,
    /// this ends the epoch, as an operator would.
    pub fn repair_torn_logs(&mut self) {
        let now = self.instant();
        for room in 0..self.names.len() {
            if !self.redis.rooms[room].tail_lost {
                continue;
            }
            let (top, _) = self.redis.bounds(room, now);
            let is_ahead = |node: &Node| {
                let at = node.dispatcher.position(&self.names[room]);
                node.alive && at.is_some_and(|at| at.epoch == top.epoch && at.offset > top.offset)
            };
            if !self.nodes.iter().any(is_ahead) {
                self.redis.end_epoch(room, Remains::All, now);
            }
        }
    }
}
