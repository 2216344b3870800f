//! The world of a schedule: virtual time, the nodes, the store and the clients. Everything is an
//! event at a moment in virtual time; equal seeds give equal runs.

use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use switchboard::broker::redis::topics::SubscriptionRequest;
use switchboard::dispatcher::Now;
use switchboard::model::id::RoomName;

use super::client::{Action, Client, Context, Timer};
use super::faults::{Plan, Step};
use super::node::{Input, Node, StoreRequest};
use super::oracle::{Figures, Kind, Oracle, Violation};
use super::presence::PresenceUpdate;
use super::redis::Redis;
use super::transport::Transport;

pub const TICK: u64 = 250;

/// An event of the simulation.
pub enum SimEvent {
    /// An input arrives at a node.
    Node(usize, u32, Input),
    Turn(usize, u32),
    Writer(usize, u32, u64),
    Execute(InFlight),
    Subscribe {
        node: usize,
        life: u32,
        link: u32,
        ask: SubscriptionRequest,
    },
    Client(usize, u32, Delivery),
    Timer(usize, u32, Timer),
    Step(Step),
    Thaw(usize),
    Restart(usize, u32),
    /// A node's presence update arrives at the store.
    SetPresence(PresenceUpdate),
    /// A fault ends that lasts.
    FaultEnds(super::injection::FaultEnd),
}

/// A request on its way to the store, on one of a node's pipelines.
pub struct InFlight {
    pub node: usize,
    pub life: u32,
    pub pipeline: usize,
    /// The connection's number: a later connection delivers no answer to it.
    pub link: u32,
    pub number: u64,
    pub request: StoreRequest,
}

pub enum Delivery {
    Opened,
    Frames(Vec<Bytes>),
    Closed(Option<u16>),
}

struct Entry {
    at: u64,
    number: u64,
    what: SimEvent,
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
            self.later(at, SimEvent::Node(node, 0, Input::Tick));
        }
        for (at, step) in self.plan.steps.clone() {
            self.later(at, SimEvent::Step(step));
        }
        for client in 0..self.clients.len() {
            self.with_client(client, Client::connect);
        }
    }

    /// Runs the schedule to its end. Returns the violations, the figures and whether the transport
    /// tampered with a message.
    pub fn run(mut self) -> (Vec<Violation>, Figures, bool) {
        let (healed_at, settle_timeout) = (self.plan.healed_at, self.plan.settle_timeout);
        self.run_until(healed_at, |_| false);
        let settled = self.run_until(healed_at + settle_timeout, World::is_settled);
        if settled {
            // Events that are still under way to the nodes change no reply any more.
            self.run_until(self.now + 1_000, |_| false);
            // A client whose subscription is silently dead does not receive these messages.
            self.publish_last();
            if !self.run_until(self.now + 8_000, World::is_settled) {
                self.report_unsettled("after the last publications");
            }
            self.run_until(self.now + 1_000, |_| false);
            self.request_lists();
            if !self.run_until(self.now + 8_000, World::is_settled) {
                self.report_unsettled("after the last lists");
            }
            self.check_lists();
        } else if self.oracle.violations.is_empty() {
            self.report_unsettled("after the last fault");
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

    /// Runs until `done`, which is checked four times a second, or until `end`. Returns whether it
    /// is done.
    pub fn run_until(&mut self, end: u64, done: fn(&mut World) -> bool) -> bool {
        let mut check_at = self.now;
        while let Some(entry) = self.heap.peek() {
            if entry.at >= check_at {
                if done(self) {
                    return true;
                }
                check_at += TICK;
                continue;
            }
            if entry.at > end || !self.oracle.violations.is_empty() {
                break;
            }
            let entry = self.heap.pop().expect("peeked");
            self.now = entry.at;
            self.process(entry.what);
        }
        self.now = self.now.max(end);
        false
    }

    pub fn note(&self, text: impl FnOnce() -> String) {
        if self.trace {
            println!("{:>7} {}", self.now, text());
        }
    }

    pub fn later(&mut self, ms: u64, what: SimEvent) {
        self.at(self.now + ms, what);
    }

    pub fn at(&mut self, at: u64, what: SimEvent) {
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

    pub fn process(&mut self, what: SimEvent) {
        match what {
            SimEvent::Node(node, life, input) => {
                if self.nodes[node].life != life || !self.nodes[node].alive {
                    self.reject_input(node, input);
                } else if self.nodes[node].is_frozen(self.now) {
                    self.nodes[node].held.push_back(input);
                } else {
                    self.handle_input(node, input);
                }
            }
            SimEvent::Turn(node, life) if self.nodes[node].life == life => self.turn(node),
            SimEvent::Turn(..) => {}
            SimEvent::Writer(node, life, session) if self.nodes[node].life == life => {
                if let Some(session) = self.nodes[node].sessions.get_mut(&session) {
                    session.scheduled = false;
                }
                if !self.nodes[node].is_frozen(self.now) {
                    self.write(node, session);
                }
            }
            SimEvent::Writer(..) => {}
            SimEvent::Execute(request) => self.execute(request),
            SimEvent::Subscribe {
                node,
                life,
                link,
                ask,
            } => self.subscribe(node, life, link, ask),
            SimEvent::Client(client, conn, delivery) => self.deliver(client, conn, delivery),
            SimEvent::Timer(client, conn, timer) => {
                if self.links[client].conn == conn {
                    self.with_client(client, |client, context| client.timer(timer, context));
                }
            }
            SimEvent::Step(step) => self.step(step),
            SimEvent::Thaw(node) => self.thaw(node),
            SimEvent::Restart(node, life) => self.restart(node, life),
            SimEvent::SetPresence(update) => self.receive_presence(update),
            SimEvent::FaultEnds(end) => self.end_fault(end),
        }
    }

    // Clients.

    pub fn with_client(&mut self, index: usize, act: impl FnOnce(&mut Client, &mut Context<'_>)) {
        let mut context = Context {
            now: self.now,
            instant: self.instant(),
            random: &mut self.random,
            oracle: &mut self.oracle,
            redis: &mut self.redis,
        };
        act(&mut self.clients[index], &mut context);
        self.carry_out(index);
    }

    pub fn carry_out(&mut self, client: usize) {
        for act in std::mem::take(&mut self.clients[client].actions) {
            let conn = self.links[client].conn;
            match act {
                Action::Later(ms, timer) => self.later(ms, SimEvent::Timer(client, conn, timer)),
                Action::Connect => self.connect(client),
                Action::Close => self.send_node(client, Input::Closed { client, conn }),
                Action::SignIn(id, user) => {
                    let input = Input::SignIn {
                        client,
                        conn,
                        id,
                        user,
                    };
                    self.send_node(client, input);
                }
                Action::Send(id, command) => {
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

    /// Connects to a random node that is ready, as a load balancer would; a frozen one looks ready.
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
            return self.later(5, SimEvent::Client(client, conn, Delivery::Closed(None)));
        };
        self.links[client].node = node;
        self.links[client].life = self.nodes[node].life;
        self.note(|| format!("client {client} connects to node {node}"));
        self.send_node(client, Input::Accept { client, conn });
    }

    /// Sends an input from a client to its node, in order.
    pub fn send_node(&mut self, client: usize, input: Input) {
        let delay = self.random.u64(..5);
        let now = self.now;
        let link = &mut self.links[client];
        if link.black_holed {
            return;
        }
        link.sent_at = link.sent_at.max(now + delay);
        let (at, node, life) = (link.sent_at, link.node, link.life);
        self.at(at, SimEvent::Node(node, life, input));
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
                self.with_client(client, |client, context| client.lost(code, None, context));
            }
            Delivery::Frames(chunks) => {
                for frame in self.transport.frames(client, conn, &chunks) {
                    self.note(|| format!("client {client} receives {frame:?}"));
                    match frame {
                        super::transport::Frame::Ping => {
                            self.send_node(client, Input::Pong { client, conn });
                        }
                        super::transport::Frame::Text(text) => {
                            self.with_client(client, |client, context| {
                                client.receives(&text, context)
                            });
                        }
                    }
                }
            }
        }
    }
}
