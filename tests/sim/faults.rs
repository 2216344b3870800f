//! The plan of a schedule: its sizes, the steps of its clients and its faults. All of it comes from
//! the seed.

use super::node::Sizes;
use super::redis::Remains;

const REMAINS: &[Remains] = &[Remains::All, Remains::Older, Remains::Nothing];

/// A step of a schedule.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    Publish { client: usize, room: usize },
    Join { client: usize, room: usize },
    Leave { client: usize, room: usize },
    Rejoin { client: usize, room: usize },
    History { client: usize, room: usize },
    Fault(Fault),
}

/// Durations are milliseconds.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// The subscription is cut and reconnects after `down`.
    CutSubscription {
        node: usize,
        down: u64,
    },
    /// The subscription looks alive and receives nothing, until the liveness probe detects it.
    HalfOpen {
        node: usize,
        time: u64,
    },
    /// The push queue overflows.
    Overflow {
        node: usize,
        time: u64,
    },
    CutPipeline {
        node: usize,
        pipeline: usize,
        down: u64,
    },
    /// Cuts both pipelines and the subscription.
    CutNode {
        node: usize,
        down: u64,
    },
    RefuseReads {
        node: usize,
        count: u32,
    },
    /// One of the three connections (2: the subscription) is slow.
    Slow {
        node: usize,
        link: usize,
        delay: u64,
        time: u64,
    },
    FreezeNode {
        node: usize,
        time: u64,
    },
    KillNode {
        node: usize,
        down: u64,
    },
    DrainNode {
        node: usize,
        down: u64,
    },
    FreezeStore {
        time: u64,
    },
    /// The store is unreachable for all nodes.
    StoreAway {
        down: u64,
    },
    /// The store is emptied, restarted or restored: every room begins a new epoch.
    EndEpochs {
        away: bool,
        left: Remains,
    },
    EndEpoch {
        room: usize,
        left: Remains,
    },
    LoseTail {
        room: usize,
    },
    /// The client does not read.
    StallClient {
        client: usize,
        time: u64,
    },
    DropClient {
        client: usize,
    },
    /// Nothing passes between client and node, and neither end is notified.
    BlackHole {
        client: usize,
    },
    Burst {
        client: usize,
        room: usize,
        count: usize,
    },
}

impl Fault {
    fn lasts(self) -> u64 {
        match self {
            Fault::CutSubscription { down, .. }
            | Fault::CutPipeline { down, .. }
            | Fault::CutNode { down, .. }
            | Fault::KillNode { down, .. }
            | Fault::StoreAway { down } => down,
            Fault::DrainNode { down, .. } => down + 4_000,
            Fault::HalfOpen { time, .. }
            | Fault::Overflow { time, .. }
            | Fault::Slow { time, .. }
            | Fault::FreezeNode { time, .. }
            | Fault::FreezeStore { time }
            | Fault::StallClient { time, .. } => time,
            Fault::EndEpochs { .. } => 1_000,
            _ => 0,
        }
    }

    /// No event reports it to the nodes: only the periodic comparison of rooms detects it.
    fn is_silent(self) -> bool {
        matches!(
            self,
            Fault::EndEpochs { .. } | Fault::EndEpoch { .. } | Fault::LoseTail { .. }
        )
    }
}

#[derive(Clone, Debug)]
pub struct Plan {
    pub nodes: usize,
    pub clients: usize,
    pub rooms: usize,
    pub sizes: Sizes,
    pub steps: Vec<(u64, Step)>,
    /// When the last fault ends.
    pub healed_at: u64,
    /// How long the clients may take after that to reach the top of their rooms.
    pub settle_timeout: u64,
}

/// Which kinds of faults a plan may contain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultMix {
    Any,
    /// Only faults that cut no client's connection.
    StoreOnly,
}

impl Plan {
    pub fn new(random: &mut fastrand::Rng, mix: FaultMix) -> Self {
        let sizes = Sizes {
            // A trimmed log may report a gap, and so hide a tampered message.
            history_size: *pick(
                random,
                if mix == FaultMix::Any {
                    &[5, 40, 200]
                } else {
                    &[200]
                },
            ),
            page: *pick(random, &[5, 25, 1_000]),
            recent_memory: *pick(random, &[0, 1_500, 1 << 20]),
            outbox_bytes: *pick(random, &[2_048, 4_096, 1 << 18]),
            linger: random.u64(0..2_000),
            delay: *pick(random, &[2, 10, 60]),
            grace: *pick(random, &[0, 300, 1_500]),
            // One member, none, all.
            presence_memory: *pick(random, &[200, 1 << 20, 1 << 20]),
        };
        let mut plan = Self {
            nodes: random.usize(1..=3),
            clients: random.usize(2..=5),
            rooms: *pick(random, &[1, 1, 2, 3, 6]),
            sizes,
            steps: Vec::new(),
            healed_at: 0,
            settle_timeout: 16_000,
        };
        let length = *pick(random, &[1_000, 3_000, 6_000]);
        plan.add_client_steps(random, length, mix);
        // Few kinds in one plan, so that each also occurs without others.
        let kinds: Vec<u8> = (0..random.usize(0..=3)).map(|_| random.u8(..20)).collect();
        for _ in 0..random.usize(0..=5) {
            if let Some(kind) = random.choice(&kinds) {
                let fault = plan.fault(random, *kind, mix);
                plan.add(random.u64(200..length), fault);
            }
        }
        plan.healed_at = plan.healed_at.max(length) + 200;
        plan
    }

    fn add(&mut self, at: u64, fault: Fault) {
        if fault.is_silent() {
            // A node detects it within a minute, and the others within one more.
            self.settle_timeout = 130_000;
        }
        self.healed_at = self.healed_at.max(at + fault.lasts());
        self.steps.push((at, Step::Fault(fault)));
    }

    fn add_client_steps(&mut self, random: &mut fastrand::Rng, length: u64, mix: FaultMix) {
        let store_only = mix == FaultMix::StoreOnly;
        for client in 0..self.clients {
            for room in 0..self.rooms {
                let late = random.u8(..4) == 0;
                let at = if late {
                    random.u64(..length)
                } else {
                    random.u64(..20)
                };
                if room == 0 || random.u8(..4) > 0 {
                    self.steps.push((at, Step::Join { client, room }));
                }
            }
        }
        for _ in 0..random.usize(5..40) {
            let at = random.u64(100..length);
            let (client, room) = (random.usize(..self.clients), random.usize(..self.rooms));
            let step = match random.u8(..24) {
                0 if !store_only => Step::Rejoin { client, room },
                1 | 2 if !store_only => {
                    let back = at + *pick(random, &[0, 1, 20, 500, 3_000]);
                    self.steps.push((back, Step::Join { client, room }));
                    self.healed_at = self.healed_at.max(back);
                    Step::Leave { client, room }
                }
                3 => Step::History { client, room },
                4 => Step::Fault(Fault::Burst {
                    client,
                    room,
                    count: random.usize(2..20),
                }),
                _ => Step::Publish { client, room },
            };
            self.steps.push((at, step));
        }
    }

    fn fault(&self, random: &mut fastrand::Rng, kind: u8, mix: FaultMix) -> Fault {
        let node = random.usize(..self.nodes);
        let client = random.usize(..self.clients);
        let room = random.usize(..self.rooms);
        let down = *pick(random, &[5, 100, 1_000, 3_000]);
        let time = *pick(random, &[50, 500, 2_500]);
        let kind = if mix == FaultMix::StoreOnly {
            kind % 9
        } else {
            kind
        };
        match kind {
            0 => Fault::CutSubscription { node, down },
            1 => Fault::HalfOpen { node, time },
            2 => Fault::Overflow { node, time },
            3 => Fault::CutPipeline {
                node,
                pipeline: random.usize(..2),
                down,
            },
            4 => Fault::CutNode { node, down },
            5 => Fault::RefuseReads {
                node,
                count: random.u32(1..6),
            },
            6 => Fault::Slow {
                node,
                link: random.usize(..3),
                delay: time,
                time: down,
            },
            7 => Fault::FreezeStore { time },
            8 => Fault::StoreAway { down },
            9 => Fault::FreezeNode { node, time },
            10 | 11 => Fault::KillNode { node, down },
            12 => Fault::DrainNode { node, down },
            13 => Fault::EndEpochs {
                away: random.bool(),
                left: *pick(random, REMAINS),
            },
            14 => Fault::EndEpoch {
                room,
                left: *pick(random, REMAINS),
            },
            15 => Fault::LoseTail { room },
            16 => Fault::StallClient { client, time: down },
            17 => Fault::DropClient { client },
            18 => Fault::BlackHole { client },
            _ => Fault::Burst {
                client,
                room,
                count: random.usize(20..60),
            },
        }
    }
}

fn pick<'a, T>(random: &mut fastrand::Rng, from: &'a [T]) -> &'a T {
    &from[random.usize(..from.len())]
}
