//! The world between the nodes and the store: requests on their connections, what the store does,
//! and what it pushes.

use std::sync::Arc;

use switchboard::broker::redis::topics::Ask;
use switchboard::broker::{BrokerEvent, Publish, Refused, Request};
use switchboard::dispatcher::Event;

use super::node::{Answer, Input, Job, PUBLISHES, Push, READS, Waiting};
use super::redis::Subscriber;
use super::world::{Happening, PresenceCommand, World};

/// How long a publish or a read waits for its answer.
const PATIENCE: u64 = 2_000;

impl World {
    pub fn ask(&mut self, index: usize, request: Request) {
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
            Request::SetPresence(here) => self.say_here(index, here),
            Request::Members(members) => self.push_job(index, READS, Job::Members(members)),
            Request::Revoke(revoke) => self.push_job(index, PUBLISHES, Job::Revoke(revoke)),
            Request::ReadRevocations(read) => {
                self.push_job(index, READS, Job::ReadRevocations(read));
            }
            // Only backends ask for it, and there are none here.
            Request::Connected(_) | Request::Census(_) => {}
            Request::Retire(time) => self.retire(index, time.as_millis() as u64),
        }
    }

    pub fn push_job(&mut self, index: usize, lane: usize, job: Job) {
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

    pub fn send_lane(&mut self, index: usize, lane: usize) {
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
                Happening::Do(PresenceCommand {
                    node,
                    life,
                    lane,
                    link,
                    number,
                    job,
                }),
            );
        }
    }

    /// The store does what it was asked. What was on a connection that has been cut may have
    /// reached it, or not.
    pub fn work(&mut self, errand: PresenceCommand) {
        if self.redis.frozen_until > self.now {
            return self.at(self.redis.frozen_until, Happening::Do(errand));
        }
        let PresenceCommand {
            node,
            life,
            lane,
            link,
            number,
            job,
        } = errand;
        let current = self.nodes[node].life == life && self.nodes[node].lanes[lane].link == link;
        if !current && self.random.bool() {
            return;
        }
        let now = self.instant();
        let answer = match &job {
            Job::Publish(publish) => Answer::Published(self.publish(publish)),
            Job::Read(_) if self.nodes[node].fail_reads > 0 => {
                self.nodes[node].fail_reads -= 1;
                Answer::Page(Err(Refused::Unavailable))
            }
            Job::Members(_) if self.nodes[node].fail_reads > 0 => {
                self.nodes[node].fail_reads -= 1;
                Answer::MemberPage(Err(Refused::Unavailable))
            }
            Job::Members(members) => {
                let room = self.redis.index(&members.room);
                Answer::MemberPage(Ok(self.redis.presence.roll(room, members)))
            }
            Job::Read(read) => Answer::Page(Ok(self.redis.read(read, now))),
            Job::Revoke(revoke) => Answer::Revoked(Ok(self.redis.revoke(revoke))),
            Job::ReadRevocations(_) => Answer::Revocations(Ok(self.redis.revocations())),
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

    pub fn publish(
        &mut self,
        publish: &Publish,
    ) -> Result<switchboard::model::id::Position, Refused> {
        let said = &publish.publication;
        let (value, _): (u64, &str) = serde_json::from_str(said.data.get()).expect("our own data");
        let room = self.redis.index(&publish.room);
        let name = publish.room.clone();
        if publish.ephemeral {
            self.broadcast(room, |_| Push::Ephemeral(name.clone(), said.clone()));
            let epoch = switchboard::model::id::Epoch::UNKNOWN;
            return Ok(switchboard::model::id::Position { epoch, offset: 0 });
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

    pub fn broadcast(&mut self, room: usize, push: impl Fn(usize) -> Push) {
        for Subscriber { node, life, link } in self.redis.rooms[room].subscribers.clone() {
            self.push(node, life, link, push(node));
        }
    }

    /// One connection, one order: pushes arrive as they were made.
    pub fn push(&mut self, node: usize, life: u32, link: u32, push: Push) {
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

    pub fn subscribe(&mut self, node: usize, life: u32, link: u32, ask: Ask) {
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
        let (mut rooms, is_on) = match ask {
            Ask::Subscribe(rooms) => (rooms, true),
            Ask::Unsubscribe(rooms) => (rooms, false),
        };
        // After a loss they are asked for in the order of a hash map, which is another one in each
        // process.
        rooms.sort_unstable();
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
}
