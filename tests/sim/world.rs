//! The world of a schedule: virtual time, the nodes, the store between them and the clients around them. Everything that
//! happens is an event with a moment; equal seeds make equal worlds.

use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use switchboard::broker::topics::Ask;
use switchboard::broker::{BrokerEvent, Publish, Refused, Request};
use switchboard::dispatcher::{Event, Flow, Now};
use switchboard::id::{RoomName, SessionId};
use switchboard::protocol::RequestId;

use super::client::{Act, Client, Scene, Timer};
use super::faults::{Plan, Step};
use super::node::{Answer, Input, Job, Node, PUBLISHES, Push, READS, Waiting};
use super::oracle::{Figures, Kind, Oracle, Violation};
use super::redis::{Redis, Subscriber};
use super::transport::Transport;

/// How long a publish or a read waits for its answer.
const PATIENCE: u64 = 2_000;
const TICK: u64 = 250;

/// What happens.
pub enum Happening {
    /// Something reaches a node.
    Node(usize, u32, Input),
    Turn(usize, u32),
    Writer(usize, u32, u64),
    /// The store does a job.
    Do {
        node: usize,
        life: u32,
        lane: usize,
        link: u32,
        number: u64,
        job: Job,
    },
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
    /// The end of something that a fault began.
    Over(super::trouble::Over),
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
            redis: Redis::new(&names, plan.sizes.history_size, start),
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

    fn begin(&mut self) {
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
            // Whoever only seems to be live would not hear this.
            self.say_last_words();
            if !self.run_until(self.now + 8_000, World::rests) {
                self.find_restless("after the last words");
            }
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

    /// Goes on until `done`, which is looked at four times a second, or that moment. Whether it is done.
    fn run_until(&mut self, end: u64, done: fn(&mut World) -> bool) -> bool {
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

    fn happen(&mut self, what: Happening) {
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
            Happening::Do {
                node,
                life,
                lane,
                link,
                number,
                job,
            } => {
                self.work(node, life, lane, link, number, job);
            }
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
    fn connect(&mut self, client: usize) {
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

    fn deliver(&mut self, client: usize, conn: u32, delivery: Delivery) {
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

    // Nodes.

    /// Whoever speaks to a node that is gone is told so.
    fn unreached(&mut self, _: usize, input: Input) {
        if let Input::Accept { client, conn } | Input::Command { client, conn, .. } = input {
            self.later(2, Happening::Client(client, conn, Delivery::Closed(None)));
        }
    }

    pub fn reach(&mut self, index: usize, input: Input) {
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
                self.later(TICK, Happening::Node(index, life, Input::Tick));
                self.judge_torn_rooms();
            }
            Input::Accept { client, conn } => {
                node.accept(client, conn);
                self.later(1, Happening::Client(client, conn, Delivery::Opened));
            }
            Input::Command {
                client,
                conn,
                id,
                command,
            } => {
                if let Some(session) = session_of(node, client, conn) {
                    node.sessions[&session].outbox.note_heard();
                    node.inbox.push_back(Event::Command {
                        session: SessionId(session),
                        id: Some(RequestId(id)),
                        command,
                    });
                }
            }
            Input::Pong { client, conn } => {
                if let Some(session) = session_of(node, client, conn) {
                    node.sessions[&session].outbox.note_heard();
                }
            }
            Input::Closed { client, conn } => {
                if let Some(session) = session_of(node, client, conn) {
                    node.sessions.remove(&session);
                    node.inbox.push_back(Event::Closed {
                        session: SessionId(session),
                        farewell: None,
                    });
                }
            }
            Input::Drain(time) => node.inbox.push_back(Event::Drain(time)),
            Input::Answer {
                link,
                number,
                answer,
            } => {
                let lane = &mut node.lanes[answer.lane()];
                if lane.link == link
                    && let Some(waiting) = lane.waiting.remove(&number)
                {
                    node.inbox
                        .push_back(Event::Broker(waiting.job.answer(answer)));
                }
            }
            Input::Push { link, push } => {
                if node.sub.link == link && !node.sub.deaf {
                    node.hear(push, now);
                    self.ask_topics(index);
                }
            }
            Input::Deadline { lane, number } => {
                let refused = node.lanes[lane].expire(number);
                node.inbox.extend(refused.map(Event::Broker));
            }
            Input::LaneUp { lane, link } => {
                if node.lanes[lane].link == link {
                    node.lanes[lane].up = true;
                    self.send_lane(index, lane);
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
            self.later(delay, Happening::Turn(index, life));
        }
    }

    fn turn(&mut self, index: usize) {
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
            for request in requests {
                self.ask(index, request);
            }
            self.ask_topics(index);
            if flow == Flow::Ended {
                return self.end(index);
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

    /// The writer runs now, or in a moment.
    fn write_soon(&mut self, index: usize, id: u64, at_once: bool) {
        let Some(session) = self.nodes[index].sessions.get_mut(&id) else {
            return;
        };
        if session.is_hung_up() {
            let (client, conn) = (session.client, session.conn);
            self.later(1, Happening::Client(client, conn, Delivery::Closed(None)));
            return self.reach(index, Input::Closed { client, conn });
        }
        if at_once || session.scheduled || self.random.u8(..4) > 0 {
            return self.write(index, id);
        }
        session.scheduled = true;
        let (life, delay) = (self.nodes[index].life, self.random.u64(..10));
        self.later(delay, Happening::Writer(index, life, id));
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
            session.said_at = session.said_at.max(self.now + delay);
            let (at, client, conn) = (session.said_at, session.client, session.conn);
            drained |= written.drained;
            self.at(
                at,
                Happening::Client(client, conn, Delivery::Frames(written.frames)),
            );
            if let Some(farewell) = written.farewell {
                let code = u16::from_be_bytes([farewell[2], farewell[3]]);
                self.at(
                    at,
                    Happening::Client(client, conn, Delivery::Closed(Some(code))),
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

    // The store.

    fn ask(&mut self, index: usize, request: Request) {
        self.note(|| format!("node {index} asks {request:?}"));
        match request {
            Request::Follow(room) => {
                let node = &mut self.nodes[index];
                if node.sub.topics.follow(&room) {
                    node.inbox
                        .push_back(Event::Broker(BrokerEvent::Following(room)));
                    self.wake(index);
                }
            }
            Request::Unfollow(room) => {
                let now = self.instant();
                self.nodes[index].sub.topics.unfollow(&room, now);
            }
            Request::Publish(publish) => {
                self.push_job(index, PUBLISHES, Job::Publish(Arc::new(publish)))
            }
            Request::Read(read) => {
                self.oracle.figures.reads += 1;
                self.push_job(index, READS, Job::Read(read));
            }
        }
    }

    fn push_job(&mut self, index: usize, lane: usize, job: Job) {
        let node = &mut self.nodes[index];
        let life = node.life;
        let this = &mut node.lanes[lane];
        let number = this.next;
        this.next += 1;
        let waiting = Waiting {
            job,
            sent: false,
            in_doubt: false,
        };
        this.waiting.insert(number, waiting);
        self.later(
            PATIENCE,
            Happening::Node(index, life, Input::Deadline { lane, number }),
        );
        self.send_lane(index, lane);
    }

    fn send_lane(&mut self, index: usize, lane: usize) {
        let (now, life) = (self.now, self.nodes[index].life);
        let this = &mut self.nodes[index].lanes[lane];
        if !this.up {
            return;
        }
        let mut sent = Vec::new();
        for (number, waiting) in this.waiting.iter_mut().filter(|(_, waiting)| !waiting.sent) {
            waiting.sent = true;
            this.asked_at = this.asked_at.max(now + self.random.u64(..=this.delay));
            sent.push((this.asked_at, *number, waiting.job.clone()));
        }
        let link = this.link;
        for (at, number, job) in sent {
            let node = index;
            self.at(
                at,
                Happening::Do {
                    node,
                    life,
                    lane,
                    link,
                    number,
                    job,
                },
            );
        }
    }

    /// The store does what it was asked. What was on a connection that has been cut may have reached it, or not.
    fn work(&mut self, node: usize, life: u32, lane: usize, link: u32, number: u64, job: Job) {
        if self.redis.frozen_until > self.now {
            let at = self.redis.frozen_until;
            return self.at(
                at,
                Happening::Do {
                    node,
                    life,
                    lane,
                    link,
                    number,
                    job,
                },
            );
        }
        let current = self.nodes[node].life == life && self.nodes[node].lanes[lane].link == link;
        if !current && self.random.bool() {
            return;
        }
        let now = self.instant();
        let answer = match &job {
            Job::Publish(publish) => Answer::Published(self.publish(publish)),
            Job::Read(read) if self.nodes[node].fail_reads > 0 => {
                self.nodes[node].fail_reads -= 1;
                let _ = read;
                Answer::Page(Err(Refused::Unavailable))
            }
            Job::Read(read) => Answer::Page(Ok(self.redis.read(read, now))),
        };
        if !current {
            return;
        }
        let lane = &mut self.nodes[node].lanes[lane];
        lane.answered_at = lane
            .answered_at
            .max(self.now + self.random.u64(..=lane.delay));
        let at = lane.answered_at;
        self.at(
            at,
            Happening::Node(
                node,
                life,
                Input::Answer {
                    link,
                    number,
                    answer,
                },
            ),
        );
    }

    fn publish(&mut self, publish: &Publish) -> Result<switchboard::id::Position, Refused> {
        let said = &publish.publication;
        let (value, _): (u64, &str) = serde_json::from_str(said.data.get()).expect("our own data");
        let room = self.redis.index(&publish.room);
        let name = publish.room.clone();
        if publish.ephemeral {
            self.broadcast(room, |_| Push::Ephemeral(name.clone(), said.clone()));
            let epoch = switchboard::id::Epoch::UNKNOWN;
            return Ok(switchboard::id::Position { epoch, offset: 0 });
        }
        let published = self.redis.publish(publish, value, self.instant());
        if let (true, Ok(at)) = (published.is_new, published.result) {
            self.note(|| format!("store: {value} in {name} at {at:?}"));
            self.broadcast(room, |_| {
                Push::Message(name.clone(), at.epoch, at.offset, said.clone())
            });
        }
        published.result
    }

    fn broadcast(&mut self, room: usize, push: impl Fn(usize) -> Push) {
        for Subscriber { node, life, link } in self.redis.rooms[room].subscribers.clone() {
            self.push(node, life, link, push(node));
        }
    }

    /// One connection, one order: pushes arrive as they were made.
    fn push(&mut self, node: usize, life: u32, link: u32, push: Push) {
        let sub = &mut self.nodes[node].sub;
        if sub.link == link {
            sub.heard_at = sub.heard_at.max(self.now + self.random.u64(..=sub.delay));
            let at = sub.heard_at;
            self.at(at, Happening::Node(node, life, Input::Push { link, push }));
        }
    }

    pub fn ask_topics(&mut self, index: usize) {
        let now = self.now;
        let node = &mut self.nodes[index];
        if !node.sub.up || node.sub.asking || !node.alive {
            return;
        }
        let Some(ask) = node.sub.topics.ask(512) else {
            return;
        };
        node.sub.asking = true;
        let (life, link, node) = (node.life, node.sub.link, index);
        let sub = &mut self.nodes[index].sub;
        sub.asked_at = sub.asked_at.max(now + self.random.u64(..=sub.delay));
        let at = sub.asked_at;
        self.at(
            at,
            Happening::Subscribe {
                node,
                life,
                link,
                ask,
            },
        );
    }

    fn subscribe(&mut self, node: usize, life: u32, link: u32, ask: Ask) {
        if self.redis.frozen_until > self.now {
            let at = self.redis.frozen_until;
            return self.at(
                at,
                Happening::Subscribe {
                    node,
                    life,
                    link,
                    ask,
                },
            );
        }
        if self.nodes[node].life != life || self.nodes[node].sub.link != link {
            return;
        }
        let who = Subscriber { node, life, link };
        let (rooms, is_on) = match ask {
            Ask::Subscribe(rooms) => (rooms, true),
            Ask::Unsubscribe(rooms) => (rooms, false),
        };
        for room in rooms {
            let index = self.redis.index(&room);
            let subscribers = &mut self.redis.rooms[index].subscribers;
            subscribers.retain(|other| *other != who);
            if is_on {
                subscribers.push(who);
                self.push(node, life, link, Push::Subscribed(room));
            } else {
                self.push(node, life, link, Push::Unsubscribed(room));
            }
        }
    }

    // The end.

    /// Whether everyone has come to rest at the top of each room.
    fn rests(&mut self) -> bool {
        let now = self.instant();
        let tops: Vec<_> = (0..self.names.len())
            .map(|room| self.redis.standing(room, now).0)
            .collect();
        let at_top = |client: &Client| {
            let mut rooms = client.rooms.iter().zip(&tops);
            rooms.all(|(room, top)| room.as_ref().is_none_or(|room| room.position == Some(*top)))
        };
        !self.redis.rooms.iter().any(|room| room.tail_lost)
            && self
                .clients
                .iter()
                .all(|client| client.rests() && at_top(client))
            && self
                .nodes
                .iter()
                .all(|node| node.alive && node.dispatcher.load().is_idle())
    }

    fn find_restless(&mut self, when: &str) {
        let now = self.instant();
        let mut text = format!("{when}:");
        for room in 0..self.names.len() {
            text += &format!(
                "\n  r{room} stands at {:?}",
                self.redis.standing(room, now).0
            );
        }
        for (index, client) in self.clients.iter().enumerate() {
            text += &format!("\n  client {index} on {:?}: {client:?}", self.links[index]);
        }
        for (index, node) in self.nodes.iter().enumerate() {
            text += &format!(
                "\n  node {index}, alive {}: {:?}",
                node.alive,
                node.dispatcher.load()
            );
        }
        self.oracle.violate(Kind::Stuck, text);
    }

    fn say_last_words(&mut self) {
        for room in 0..self.names.len() {
            let joined = |client: &Client| client.rooms[room].is_some();
            if let Some(index) = self.clients.iter().position(joined) {
                self.clients[index].say(room, true, false, &mut self.oracle);
                self.carry_out(index);
            }
        }
    }
}
