//! The scripts and the log of the memory broker follow one rule: random publishes, restarts,
//! restored snapshots and reads have the same results in both.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use switchboard::broker::{Publication, PublishKey, Range, Refused};
use switchboard::model::history::Log;
use switchboard::model::id::{Epoch, Position, UserName};
use switchboard::model::retention::{LogLimits, Retention};

use super::node::{BrokerNode, Form, offsets};
use crate::support::redis_server::RedisServer;

const LIMITS: LogLimits = LogLimits {
    size: 7,
    age: Duration::from_secs(3600),
};

/// The keys of a room that hold its log.
const PARTS: [&str; 2] = ["log", "meta"];

/// The model, and the names of its epochs in Redis.
struct Model {
    log: Log,
    epochs: u64,
    /// The data set has changed: the next request ends the epoch.
    is_over: bool,
    names: HashMap<Epoch, Epoch>,
}

impl Model {
    fn next_epoch(&mut self) -> Epoch {
        self.epochs += 1;
        Epoch::new(self.epochs)
    }

    fn end_epoch_if_over(&mut self) {
        if std::mem::take(&mut self.is_over) {
            let next = self.next_epoch();
            self.log.end_epoch(next);
        }
    }

    /// Checks a position in Redis against the model. An epoch that appears for the first time gets
    /// its name here.
    fn agree(&mut self, expected: Position, found: Position, why: &str) {
        let name = *self.names.entry(expected.epoch).or_insert(found.epoch);
        assert_eq!(name, found.epoch, "{why}: the epoch of {expected:?}");
        assert_eq!(expected.offset, found.offset, "{why}");
    }

    fn name_of(&self, epoch: Epoch) -> Epoch {
        self.names
            .get(&epoch)
            .copied()
            .unwrap_or(Epoch::new(0xdead))
    }
}

fn publication(text: &str) -> std::sync::Arc<Publication> {
    let data = serde_json::value::RawValue::from_string(format!("\"{text}\""));
    std::sync::Arc::new(Publication {
        user: None,
        time: 1,
        except: None,
        event: None,
        data: data.expect("JSON").into(),
    })
}

#[test]
fn redis_and_memory_agree_about_epochs_keys_and_pages_whatever_befalls_the_data() {
    let server = RedisServer::start();
    let mut node = BrokerNode::on_with(&server, |settings| {
        settings.retention = Retention::uniform(LIMITS.size, LIMITS.age);
    });
    for seed in 0..40 {
        let mut random = fastrand::Rng::with_seed(seed);
        let room = format!("r{seed}");
        let now = Instant::now();
        let mut model = Model {
            log: Log::new(Epoch::new(1), now),
            epochs: 1,
            is_over: false,
            names: HashMap::new(),
        };
        let mut snapshot = None;
        let mut positions = Vec::new();
        for step in 0..60 {
            let why = format!("seed {seed}, step {step}");
            match random.u8(..12) {
                0 => {
                    for part in PARTS {
                        let key = format!("sb:{{{room}}}:{part}");
                        let copy = format!("copy:{{{room}}}:{part}");
                        server.query::<()>(&["DEL", &copy]);
                        server.query::<()>(&["COPY", &key, &copy, "REPLACE"]);
                    }
                    let exists = server.query::<bool>(&["EXISTS", &format!("sb:{{{room}}}:meta")]);
                    snapshot = exists.then(|| model.log.clone());
                }
                kind @ 1..3 => {
                    if let (1, Some(log)) = (kind, &snapshot) {
                        for part in PARTS {
                            let key = format!("sb:{{{room}}}:{part}");
                            let copy = format!("copy:{{{room}}}:{part}");
                            server.query::<()>(&["DEL", &key]);
                            server.query::<()>(&["COPY", &copy, &key, "REPLACE"]);
                        }
                        // The records for former versions would outlive the snapshot.
                        let shared = format!("sb:{{{room}}}:key:*");
                        for key in server.query::<Vec<String>>(&["KEYS", &shared]) {
                            server.query::<()>(&["DEL", &key]);
                        }
                        model.log = log.clone();
                    }
                    let meta = format!("sb:{{{room}}}:meta");
                    if server.query::<bool>(&["EXISTS", &meta]) {
                        server.query::<()>(&["HSET", &meta, "replid", "another"]);
                        model.is_over = true;
                    }
                }
                3..7 => {
                    let key = random.u8(..6).to_string();
                    let keyed = random.bool();
                    let form = if keyed {
                        Form::keyed("ada", &key)
                    } else {
                        Form::default()
                    };
                    model.end_epoch_if_over();
                    // A condition that holds, one that does not, or none.
                    let condition = match random.u8(..4) {
                        0 => Some(model.log.top()).filter(|at| model.names.contains_key(&at.epoch)),
                        1 => random.choice(&positions).copied(),
                        _ => None,
                    };
                    let form = Form {
                        condition: condition.map(|at| Position {
                            epoch: model.name_of(at.epoch),
                            ..at
                        }),
                        ..form
                    };
                    let found = node.try_publish(&room, "x", form);
                    let key = keyed.then(|| PublishKey {
                        publisher: UserName::new("ada").ok().into(),
                        key: key.as_str().into(),
                    });
                    let known = key.as_ref().and_then(|key| {
                        let sent = publication("x");
                        model
                            .log
                            .position_of(key, &sent, now)
                            .expect("the same data")
                    });
                    let holds = condition.is_none_or(|at| at == model.log.top());
                    if known.is_none() && !holds {
                        assert_eq!(found, Err(Refused::Conflict), "{why}");
                        continue;
                    }
                    let found = found.expect(&why);
                    let expected = known
                        .unwrap_or_else(|| model.log.append(publication("x"), key, LIMITS, now));
                    model.agree(expected, found, &why);
                    positions.push(expected);
                }
                _ => {
                    let mut at = random.choice(&positions).copied().unwrap_or(Position {
                        epoch: Epoch::new(99),
                        offset: 3,
                    });
                    match random.u8(..8) {
                        0 => at.epoch = Epoch::new(999),
                        1 => at.offset = (1 << 53) - 1,
                        2 => at.offset += 1,
                        _ => {}
                    }
                    let range = match random.u8(..4) {
                        0 => Range::Top,
                        1 => Range::Before(Some(at.offset)),
                        _ => Range::After(at),
                    };
                    let limit = random.usize(1..9);
                    model.end_epoch_if_over();
                    let next = model.next_epoch();
                    let expected = model.log.read(range, limit, next, now);
                    let in_redis = match range {
                        Range::After(at) => Range::After(Position {
                            epoch: model.name_of(at.epoch),
                            ..at
                        }),
                        range => range,
                    };
                    let page = node.read(&room, in_redis, limit);
                    let why = format!("{why}: {range:?}");
                    model.agree(expected.top, page.top, &why);
                    assert_eq!(offsets(&page), offsets(&expected), "{why}");
                    assert_eq!(page.first, expected.first, "{why}");
                    positions.push(expected.top);
                }
            }
        }
    }
}
