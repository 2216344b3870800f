//! The world of a schedule: virtual time, the nodes, the store between them and the clients around
//! them. Everything that happens is an event with a moment; equal seeds make equal worlds.

use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use switchboard::broker::redis::topics::Ask;
use switchboard::dispatcher::Now;
use switchboard::model::id::RoomName;

use super::client::{Act, Client, Scene, Timer};
use super::faults::{Plan, Step};
use super::node::{Input, Job, Node};
use super::oracle::{Figures, Kind, Oracle, Violation};
use super::presence::Saying;
use super::redis::Redis;
use super::transport::Transport;

pub const TICK: u64 = 250;

/// What happens.
pub enum Happening {
    /// Something reaches a node.
    Node(usize, u32, Input),
    Turn(usize, u32),
    Writer(usize, u32, u64),
    Do(PresenceCommand),
    Subscribe {
        node: usize,
        life: u32,
        link: u32,
        ask: Ask,
    },
    Client(usize, u32, Delivery),
    Timer(usize, u32, Timer),
    Step(Step),
    Thaw(usize),
    Restart(usize, u32),
    /// What a node says of its sessions reaches the store.
    SetPresence(Saying),
    /// The end of something that a fault began.
    Over(super::trouble::Over),
}

/// A job on its way to the store, by one of a node's connections.
pub struct PresenceCommand {
    pub node: usize,
    pub life: u32,
    pub lane: usize,
    /// The connection's number: a later one does not answer for it.
    pub link: u32,
    pub number: u64,
    pub job: Job,
}

pub enum Delivery {
    Opened,
    Frames(Vec<Bytes>),
    Closed(Option<u16>),
}

struct Entry {
    at: u64,
    number: u64,
    what: Happening,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}
impl Eq for Entry {}
impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

/// A client's present connection.
#[derive(Clone, Copy, Debug, Default)]
pub struct Link {
    pub conn: u32,
    pub node: usize,
    pub life: u32,
    sent_at: u64,
    pub black_holed: bool,
}

pub struct World {
    pub now: u64,
    pub start: Instant,
    pub random: fastrand::Rng,
    numbers: u64,
    heap: BinaryHeap<Entry>,
    pub plan: Plan,
    pub names: Vec<RoomName>,
    pub nodes: Vec<Node>,
    pub redis: Redis,
    pub clients: Vec<Client>,
    pub links: Vec<Link>,
    pub oracle: Oracle,
    pub transport: Transport,
    trace: bool,
}

impl World {
    pub fn new(plan: Plan, mut random: fastrand::Rng, transport: Transport, trace: bool) -> Self {
        let start = Instant::now();
        let names: Vec<RoomName> = (0..plan.rooms)
            .map(|n| RoomName::new(&format!("r{n}")).expect("a name"))
            .collect();
        let now = Now {
            instant: start,
            unix_ms: 0,
        };
        let nodes = (0..plan.nodes)
            .map(|n| Node::new(now, n, 0, &plan.sizes, random.u64(..)))
            .collect();
        let mut world = Self {
            now: 0,
            start,
            numbers: 0,
            heap: BinaryHeap::new(),
            redis: Redis::new(&names, &plan.sizes, start),
            clients: (0..plan.clients).map(|n| Client::new(n, &names)).collect(),
            links: vec![Link::default(); plan.clients],
            oracle: Oracle::default(),
            nodes,
            names,
            transport,
            random,
            trace,
            plan,
        };
        world.begin();
        world
    }

    pub fn begin(&mut self) {
        for node in 0..self.nodes.len() {
            let at = self.random.u64(..TICK);
            self.later(at, Happening::Node(node, 0, Input::Tick));
        }
        for (at, step) in self.plan.steps.clone() {
            self.later(at, Happening::Step(step));
        }
        for client in 0..self.clients.len() {
            self.with_client(client, Client::connect);
        }
    }

    /// Runs to the end of the schedule; what was found, and what happened.
    pub fn run(mut self) -> (Vec<Violation>, Figures, bool) {
        let (healed_at, patience) = (self.plan.healed_at, self.plan.patience);
        self.run_until(healed_at, |_| false);
        let rested = self.run_until(healed_at + patience, World::rests);
        if rested {
            // What is on its way to the nodes changes no answer any more.
            self.run_until(self.now + 1_000, |_| false);
            // Whoever only seems to be live would not hear this.
            self.say_last_words();
            if !self.run_until(self.now + 8_000, World::rests) {
                self.find_restless("after the last words");
            }
            self.run_until(self.now + 1_000, |_| false);
            self.ask_lists();
            if !self.run_until(self.now + 8_000, World::rests) {
                self.find_restless("after the last questions");
            }
            self.judge_lists();
        } else if self.oracle.violations.is_empty() {
            self.find_restless("after the last fault");
        }
        let truth: Vec<_> = self.redis.rooms.iter().map(|room| &room.truth).collect();
        self.oracle.judge(&truth);
        if let Some(text) = self.redis.reused.take() {
            self.oracle.violate(Kind::Lost, text);
        }
        (
            self.oracle.violations,
            self.oracle.figures,
            self.transport.was_tampered(),
        )
    }

    /// Goes on until `done`, which is looked at four times a second, or that moment. Whether it is
    /// done.
    pub fn run_until(&mut self, end: u64, done: fn(&mut World) -> bool) -> bool {
        let mut look_at = self.now;
        while let Some(entry) = self.heap.peek() {
            if entry.at >= look_at {
                if done(self) {
                    return true;
                }
                look_at += TICK;
                continue;
            }
            if entry.at > end || !self.oracle.violations.is_empty() {
                break;
            }
            let entry = self.heap.pop().expect("peeked");
            self.now = entry.at;
            self.happen(entry.what);
        }
        self.now = self.now.max(end);
        false
    }

    pub fn note(&self, text: impl FnOnce() -> String) {
        if self.trace {
            println!("{:>7} {}", self.now, text());
        }
    }

    pub fn later(&mut self, ms: u64, what: Happening) {
        self.at(self.now + ms, what);
    }

    pub fn at(&mut self, at: u64, what: Happening) {
        self.numbers += 1;
        let number = self.numbers;
        self.heap.push(Entry { at, number, what });
    }

    pub fn instant(&self) -> Instant {
        self.start + Duration::from_millis(self.now)
    }

    pub fn read_clock(&self) -> Now {
        Now {
            instant: self.instant(),
            unix_ms: self.now,
        }
    }

    pub fn happen(&mut self, what: Happening) {
        match what {
            Happening::Node(node, life, input) => {
                if self.nodes[node].life != life || !self.nodes[node].alive {
                    self.unreached(node, input);
                } else if self.nodes[node].is_frozen(self.now) {
                    self.nodes[node].held.push_back(input);
                } else {
                    self.reach(node, input);
                }
            }
            Happening::Turn(node, life) if self.nodes[node].life == life => self.turn(node),
            Happening::Turn(..) => {}
            Happening::Writer(node, life, session) if self.nodes[node].life == life => {
                if let Some(session) = self.nodes[node].sessions.get_mut(&session) {
                    session.scheduled = false;
                }
                if !self.nodes[node].is_frozen(self.now) {
                    self.write(node, session);
                }
            }
            Happening::Writer(..) => {}
            Happening::Do(errand) => self.work(errand),
            Happening::Subscribe {
                node,
                life,
                link,
                ask,
            } => self.subscribe(node, life, link, ask),
            Happening::Client(client, conn, delivery) => self.deliver(client, conn, delivery),
            Happening::Timer(client, conn, timer) => {
                if self.links[client].conn == conn {
                    self.with_client(client, |client, scene| client.timer(timer, scene));
                }
            }
            Happening::Step(step) => self.step(step),
            Happening::Thaw(node) => self.thaw(node),
            Happening::Restart(node, life) => self.restart(node, life),
            Happening::SetPresence(saying) => self.hear_here(saying),
            Happening::Over(over) => self.over(over),
        }
    }

    // Clients.

    pub fn with_client(&mut self, index: usize, act: impl FnOnce(&mut Client, &mut Scene<'_>)) {
        let mut scene = Scene {
            now: self.now,
            instant: self.instant(),
            random: &mut self.random,
            oracle: &mut self.oracle,
            redis: &mut self.redis,
        };
        act(&mut self.clients[index], &mut scene);
        self.carry_out(index);
    }

    pub fn carry_out(&mut self, client: usize) {
        for act in std::mem::take(&mut self.clients[client].acts) {
            let conn = self.links[client].conn;
            match act {
                Act::Later(ms, timer) => self.later(ms, Happening::Timer(client, conn, timer)),
                Act::Connect => self.connect(client),
                Act::Close => self.send_node(client, Input::Closed { client, conn }),
                Act::SignIn(id, user) => {
                    let input = Input::SignIn {
                        client,
                        conn,
                        id,
                        user,
                    };
                    self.send_node(client, input);
                }
                Act::Send(id, command) => {
                    self.note(|| format!("client {client} sends {id} {command:?}"));
                    self.send_node(
                        client,
                        Input::Command {
                            client,
                            conn,
                            id,
                            command,
                        },
                    );
                }
            }
        }
    }

    /// The balancer's choice: any node that is ready; a frozen one looks ready for a while.
    pub fn connect(&mut self, client: usize) {
        let conn = self.links[client].conn + 1;
        let ready: Vec<usize> = (0..self.nodes.len())
            .filter(|node| self.nodes[*node].alive && !self.nodes[*node].draining)
            .collect();
        self.links[client] = Link {
            conn,
            sent_at: self.now,
            ..Link::default()
        };
        let Some(node) = self.random.choice(ready) else {
            return self.later(5, Happening::Client(client, conn, Delivery::Closed(None)));
        };
        self.links[client].node = node;
        self.links[client].life = self.nodes[node].life;
        self.note(|| format!("client {client} connects to node {node}"));
        self.send_node(client, Input::Accept { client, conn });
    }

    /// Puts something on a client's way to its node, in order.
    pub fn send_node(&mut self, client: usize, input: Input) {
        let delay = self.random.u64(..5);
        let now = self.now;
        let link = &mut self.links[client];
        if link.black_holed {
            return;
        }
        link.sent_at = link.sent_at.max(now + delay);
        let (at, node, life) = (link.sent_at, link.node, link.life);
        self.at(at, Happening::Node(node, life, input));
    }

    pub fn deliver(&mut self, client: usize, conn: u32, delivery: Delivery) {
        if self.links[client].conn != conn || self.links[client].black_holed {
            return;
        }
        match delivery {
            Delivery::Opened => self.with_client(client, Client::opened),
            Delivery::Closed(code) => {
                self.note(|| format!("client {client} is closed: {code:?}"));
                self.send_node(client, Input::Closed { client, conn });
                self.with_client(client, |client, scene| client.lost(code, None, scene));
            }
            Delivery::Frames(chunks) => {
                for frame in self.transport.frames(client, conn, &chunks) {
                    self.note(|| format!("client {client} hears {frame:?}"));
                    match frame {
                        super::transport::Frame::Ping => {
                            self.send_node(client, Input::Pong { client, conn });
                        }
                        super::transport::Frame::Text(text) => {
                            self.with_client(client, |client, scene| client.hears(&text, scene));
                        }
                    }
                }
            }
        }
    }
}
