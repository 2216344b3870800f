//! The store's part of the world: requests on the nodes' connections, their execution, and the
//! pushes to subscribers.

use std::sync::Arc;

use switchboard::broker::redis::topics::SubscriptionRequest;
use switchboard::broker::{BrokerEvent, LogRequest, PresenceRequest, Publish, Refused, Request};
use switchboard::dispatcher::Event;

use super::node::{Answer, Input, PUBLISHES, PendingRequest, Push, READS, StoreRequest};
use super::redis::Subscriber;
use super::world::{InFlight, SimEvent, World};

/// How long a publish or a read waits for its answer.
const REQUEST_TIMEOUT: u64 = 2_000;

impl World {
    pub fn ask(&mut self, index: usize, request: Request) {
        self.note(|| format!("node {index} requests {request:?}"));
        match request {
            Request::Log(LogRequest::Follow(room)) => {
                let node = &mut self.nodes[index];
                if node.sub.topics.follow(&room) {
                    node.inbox
                        .push_back(Event::Broker(BrokerEvent::Following(room)));
                    self.wake(index);
                }
            }
            Request::Log(LogRequest::Unfollow(room)) => {
                let now = self.instant();
                self.nodes[index].sub.topics.unfollow(&room, now);
            }
            Request::Log(LogRequest::Publish(publish)) => {
                self.push_request(index, PUBLISHES, StoreRequest::Publish(Arc::new(publish)))
            }
            Request::Log(LogRequest::Read(read)) => {
                self.oracle.figures.reads += 1;
                self.push_request(index, READS, StoreRequest::Read(read));
            }
            Request::Presence(PresenceRequest::SetPresence(presence)) => {
                self.set_presence(index, presence)
            }
            Request::Presence(PresenceRequest::Members(members)) => {
                self.push_request(index, READS, StoreRequest::Members(members))
            }
            Request::Log(LogRequest::Revoke(revoke)) => {
                self.push_request(index, PUBLISHES, StoreRequest::Revoke(revoke))
            }
            Request::Log(LogRequest::ReadRevocations(read)) => {
                self.push_request(index, READS, StoreRequest::ReadRevocations(read));
            }
            // Only backends send these, and the simulation has none.
            Request::Presence(PresenceRequest::Connected(_))
            | Request::Presence(PresenceRequest::ClusterQuery(_)) => {}
            Request::Presence(PresenceRequest::Retire(time)) => {
                self.retire(index, time.as_millis() as u64)
            }
        }
    }

    pub fn push_request(&mut self, index: usize, pipeline: usize, request: StoreRequest) {
        let node = &mut self.nodes[index];
        let life = node.life;
        let this = &mut node.pipelines[pipeline];
        let number = this.next;
        this.next += 1;
        let pending = PendingRequest {
            request,
            sent: false,
            in_doubt: false,
        };
        this.pending.insert(number, pending);
        self.later(
            REQUEST_TIMEOUT,
            SimEvent::Node(index, life, Input::Deadline { pipeline, number }),
        );
        self.send_pending(index, pipeline);
    }

    pub fn send_pending(&mut self, index: usize, pipeline: usize) {
        let (now, life) = (self.now, self.nodes[index].life);
        let this = &mut self.nodes[index].pipelines[pipeline];
        if !this.up {
            return;
        }
        let mut sent = Vec::new();
        for (number, pending) in this.pending.iter_mut().filter(|(_, pending)| !pending.sent) {
            pending.sent = true;
            this.sent_at = this.sent_at.max(now + self.random.u64(..=this.delay));
            sent.push((this.sent_at, *number, pending.request.clone()));
        }
        let link = this.link;
        for (at, number, request) in sent {
            let node = index;
            self.at(
                at,
                SimEvent::Execute(InFlight {
                    node,
                    life,
                    pipeline,
                    link,
                    number,
                    request,
                }),
            );
        }
    }

    /// The store executes a request. A request on a connection that has been cut may have arrived,
    /// or not.
    pub fn execute(&mut self, request: InFlight) {
        if self.redis.frozen_until > self.now {
            return self.at(self.redis.frozen_until, SimEvent::Execute(request));
        }
        let InFlight {
            node,
            life,
            pipeline,
            link,
            number,
            request,
        } = request;
        let current =
            self.nodes[node].life == life && self.nodes[node].pipelines[pipeline].link == link;
        if !current && self.random.bool() {
            return;
        }
        let now = self.instant();
        let answer = match &request {
            StoreRequest::Publish(publish) => Answer::Published(self.publish(&publish.publish)),
            StoreRequest::Read(_) if self.nodes[node].fail_reads > 0 => {
                self.nodes[node].fail_reads -= 1;
                Answer::Page(Err(Refused::Unavailable))
            }
            StoreRequest::Members(_) if self.nodes[node].fail_reads > 0 => {
                self.nodes[node].fail_reads -= 1;
                Answer::MemberPage(Err(Refused::Unavailable))
            }
            StoreRequest::Members(members) => {
                let room = self.redis.index(&members.query.room);
                Answer::MemberPage(Ok(self.redis.presence.member_page(room, &members.query)))
            }
            StoreRequest::Read(read) => Answer::Page(Ok(self.redis.read(read, now))),
            StoreRequest::Revoke(revoke) => Answer::Revoked(Ok(self.redis.revoke(revoke))),
            StoreRequest::ReadRevocations(_) => Answer::Revocations(Ok(self.redis.revocations())),
        };
        if !current {
            return;
        }
        let pipeline = &mut self.nodes[node].pipelines[pipeline];
        pipeline.answered_at = pipeline
            .answered_at
            .max(self.now + self.random.u64(..=pipeline.delay));
        let at = pipeline.answered_at;
        self.at(
            at,
            SimEvent::Node(
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
        let publication = &publish.publication;
        let (value, _): (u64, &str) =
            serde_json::from_str(publication.data.json().expect("JSON")).expect("our own data");
        let room = self.redis.index(&publish.room);
        let name = publish.room.clone();
        if publish.ephemeral {
            self.broadcast(room, |_| Push::Ephemeral(name.clone(), publication.clone()));
            let epoch = switchboard::model::id::Epoch::UNKNOWN;
            return Ok(switchboard::model::id::Position { epoch, offset: 0 });
        }
        let published = self.redis.publish(publish, value, self.instant());
        if let (true, Ok(at)) = (published.is_new, published.result) {
            self.note(|| format!("store: {value} in {name} at {at:?}"));
            self.broadcast(room, |_| {
                Push::Message(name.clone(), at.epoch, at.offset, publication.clone())
            });
        }
        published.result
    }

    pub fn broadcast(&mut self, room: usize, push: impl Fn(usize) -> Push) {
        for Subscriber { node, life, link } in self.redis.rooms[room].subscribers.clone() {
            self.push(node, life, link, push(node));
        }
    }

    /// Pushes on one connection arrive in the order in which they were sent.
    pub fn push(&mut self, node: usize, life: u32, link: u32, push: Push) {
        let sub = &mut self.nodes[node].sub;
        if sub.link == link {
            sub.pushed_at = sub.pushed_at.max(self.now + self.random.u64(..=sub.delay));
            let at = sub.pushed_at;
            self.at(at, SimEvent::Node(node, life, Input::Push { link, push }));
        }
    }

    pub fn ask_topics(&mut self, index: usize) {
        let now = self.now;
        let node = &mut self.nodes[index];
        if !node.sub.up || node.sub.asking || !node.alive {
            return;
        }
        let Some(ask) = node.sub.topics.next_request(512) else {
            return;
        };
        node.sub.asking = true;
        let (life, link, node) = (node.life, node.sub.link, index);
        let sub = &mut self.nodes[index].sub;
        sub.sent_at = sub.sent_at.max(now + self.random.u64(..=sub.delay));
        let at = sub.sent_at;
        self.at(
            at,
            SimEvent::Subscribe {
                node,
                life,
                link,
                ask,
            },
        );
    }

    pub fn subscribe(&mut self, node: usize, life: u32, link: u32, ask: SubscriptionRequest) {
        if self.redis.frozen_until > self.now {
            let at = self.redis.frozen_until;
            return self.at(
                at,
                SimEvent::Subscribe {
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
        let subscriber = Subscriber { node, life, link };
        let (mut rooms, is_on) = match ask {
            SubscriptionRequest::Subscribe(rooms) => (rooms, true),
            SubscriptionRequest::Unsubscribe(rooms) => (rooms, false),
        };
        // After a reconnect, topics come in the order of a hash map, which differs between
        // processes.
        rooms.sort_unstable();
        for room in rooms {
            let index = self.redis.index(&room);
            let subscribers = &mut self.redis.rooms[index].subscribers;
            subscribers.retain(|other| *other != subscriber);
            if is_on {
                subscribers.push(subscriber);
                self.push(node, life, link, Push::Subscribed(room));
            } else {
                self.push(node, life, link, Push::Unsubscribed(room));
            }
        }
    }
}
