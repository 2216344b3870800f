//! The set of revocations on every broker; and in Redis after a change of data set, a loss of data,
//! and with values of another type.

use std::sync::Arc;

use serde_json::value::RawValue;
use switchboard::broker::redis::{LEASE, RedisSettings};
use switchboard::broker::{
    BrokerEvent, Confirm, LogRequest, Publication, Publish, PublishRequest, ReadRevocations,
    Refused, Request, RevocationRetention, Revoke, Source, StoredRevocations,
};
use switchboard::dispatcher::Now;
use switchboard::model::id::UserName;
use switchboard::model::revocations::{Cutoff, MOST};

use super::node::{BrokerNode, World, name, settings};
use crate::support::redis_server::{Options, RedisServer};
use crate::support::{DEADLINE, Issuer, TestNode, run};

const HOUR: u64 = 3_600_000;

fn revocation_retention() -> RevocationRetention {
    let now = Now::read().unix_ms;
    let lifetime = HOUR;
    RevocationRetention { now, lifetime }
}

fn user(name: &str) -> UserName {
    UserName::new(name).expect(name)
}

impl BrokerNode {
    fn try_revoke(
        &mut self,
        cutoffs: &[(&str, Cutoff)],
        confirm: Option<Confirm>,
    ) -> Result<Vec<UserName>, Refused> {
        let cutoffs = cutoffs.iter().map(|(name, cutoff)| (user(name), *cutoff));
        let cutoffs = cutoffs.collect();
        let asked = self.ask(|ticket| {
            Request::Log(LogRequest::Revoke(Revoke {
                ticket,
                source: Source::Node,
                cutoffs,
                confirm,
                retention: revocation_retention(),
            }))
        });
        self.wait("answer to the write", |event| match event {
            BrokerEvent::Revoked { ticket, result } if *ticket == asked => Some(result.clone()),
            _ => None,
        })
    }

    /// Writes a cutoff, and returns whether that changed the set.
    pub fn revoke(&mut self, name: &str, cutoff: Cutoff) -> bool {
        let changed = self.try_revoke(&[(name, cutoff)], None).expect("written");
        changed == [user(name)]
    }

    /// Confirms that this node has written all its revocations.
    fn confirm(&mut self, stored: &StoredRevocations, force: bool) {
        let data_set = stored.data_set.clone();
        let confirm = Some(Confirm { data_set, force });
        self.try_revoke(&[], confirm).expect("written");
    }

    fn read_set(&mut self, is_starting: bool) -> StoredRevocations {
        let asked = self.ask(|ticket| {
            Request::Log(LogRequest::ReadRevocations(ReadRevocations {
                ticket,
                is_starting,
                retention: revocation_retention(),
            }))
        });
        self.wait("set of revocations", |event| match event {
            BrokerEvent::Revocations { ticket, result } if *ticket == asked => {
                Some(result.clone().expect("a set"))
            }
            _ => None,
        })
    }

    pub fn revocations(&mut self) -> Vec<(String, Cutoff)> {
        let cutoffs = self.read_set(false).cutoffs.into_iter();
        let mut all: Vec<_> = cutoffs
            .map(|(user, cutoff)| (user.as_str().to_owned(), cutoff))
            .collect();
        all.sort();
        all
    }

    /// Reads until the set awaits this number of other nodes.
    fn until_awaited(&mut self, wanted: u64) -> StoredRevocations {
        let start = std::time::Instant::now();
        loop {
            let stored = self.read_set(true);
            if stored.awaited == wanted && !stored.is_confirmed {
                return stored;
            }
            assert!(start.elapsed() < DEADLINE, "{stored:?}");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}

over_every_broker!(
    highest_cutoff_of_a_user_is_kept,
    oldest_revocation_over_the_bound_and_expired_ones_are_removed,
);

fn highest_cutoff_of_a_user_is_kept(world: World) {
    let (mut one, mut other) = (world.node(), world.node());
    let now = Now::read().unix_ms;
    assert_eq!(one.revocations(), []);
    assert!(one.revoke("ada", Cutoff::at(now)));
    assert!(!other.revoke("ada", Cutoff::at(now)), "a retry");
    assert!(!other.revoke("ada", Cutoff::at(now - 1)));
    let exact = Cutoff::issued_before(now + 3);
    assert!(!other.revoke("ada", exact), "it reaches less far");
    assert!(other.revoke("bob", exact));
    let expected = [
        ("ada".to_owned(), Cutoff::at(now)),
        ("bob".to_owned(), exact),
    ];
    assert_eq!(one.revocations(), expected);
    assert_eq!(other.revocations(), expected);
    assert!(one.revoke("ada", Cutoff::at(now + 1)));
    assert_eq!(other.revocations()[0].1, Cutoff::at(now + 1));
}

fn oldest_revocation_over_the_bound_and_expired_ones_are_removed(world: World) {
    let mut node = world.node();
    let now = Now::read().unix_ms;
    node.revoke("late", Cutoff::issued_before(now - HOUR - 60_000));
    let names: Vec<String> = (0..MOST).map(|number| format!("u{number}")).collect();
    let cutoffs: Vec<_> = (0..)
        .zip(&names)
        .map(|(number, name)| (name.as_str(), Cutoff::issued_before(now + number)))
        .collect();
    for part in cutoffs.chunks(1000) {
        let changed = node.try_revoke(part, None).expect("written");
        assert_eq!(changed.len(), part.len());
    }
    let all = node.revocations();
    assert_eq!(all.len(), MOST);
    assert!(all.iter().all(|(name, _)| name != "late"));
    assert!(
        !node.revoke("old", Cutoff::issued_before(now - 1)),
        "it went at once"
    );
    assert!(node.revoke("new", Cutoff::at(now + 20_000)));
    let all = node.revocations();
    let has = |wanted: &str| all.iter().any(|(name, _)| name == wanted);
    assert_eq!(
        (all.len(), has("u0"), has("u1"), has("new")),
        (MOST, false, true, true)
    );
}

#[test]
fn set_is_unconfirmed_after_a_restart_until_every_live_node_confirms() {
    let options = Options::default().arg("--appendonly yes --appendfsync always");
    let mut server = RedisServer::with(options);
    let (mut one, mut other) = (BrokerNode::on(&server), BrokerNode::on(&server));
    let cutoff = Cutoff::at(Now::read().unix_ms);
    let stored = one.read_set(false);
    assert!(!stored.is_confirmed, "no node has confirmed it");
    one.confirm(&stored, true);
    assert!(other.read_set(false).is_confirmed);
    assert!(one.revoke("ada", cutoff));

    server.restart();
    for node in [&mut one, &mut other] {
        node.wait("news of the restart", |event| {
            matches!(event, BrokerEvent::DataSetChanged).then_some(())
        });
    }
    let mut starting = BrokerNode::on(&server);
    let mut second = BrokerNode::on(&server);
    second.read_set(true);
    let now = starting.until_awaited(2);
    assert_eq!(now.cutoffs, [(user("ada"), cutoff)], "the data are there");
    assert_ne!(now.data_set, stored.data_set);
    one.confirm(&stored, false);
    assert_eq!(starting.read_set(true).awaited, 2, "of another data set");
    one.confirm(&now, false);
    let stored = starting.read_set(true);
    assert_eq!((stored.awaited, stored.is_confirmed), (1, false));
    other.confirm(&now, false);
    assert!(starting.read_set(true).is_confirmed);
    let fields: Vec<String> = server.query(&["HKEYS", "sb:revoked:confirmed"]);
    assert_eq!(fields, ["complete"]);
}

#[test]
fn node_detects_lost_data_without_a_redis_restart() {
    let server = RedisServer::start();
    let mut node = BrokerNode::on(&server);
    let stored = node.read_set(false);
    node.confirm(&stored, false);
    assert!(node.read_set(false).is_confirmed);
    server.query::<()>(&["FLUSHALL"]);
    node.wait("news of the loss", |event| {
        matches!(event, BrokerEvent::DataSetChanged).then_some(())
    });
    let now = node.read_set(false);
    assert_eq!((now.is_confirmed, now.data_set), (false, stored.data_set));
}

#[test]
fn set_of_another_type_is_replaced_and_unconfirmed() {
    let server = RedisServer::start();
    let mut node = BrokerNode::on(&server);
    let cutoff = Cutoff::at(Now::read().unix_ms);
    let stored = node.read_set(false);
    node.confirm(&stored, false);
    for key in ["sb:revoked", "sb:revoked:confirmed"] {
        node.revoke("ada", cutoff);
        server.query::<()>(&["SET", key, "something else"]);
        assert!(!node.read_set(false).is_confirmed, "{key}");
        node.revoke("ada", cutoff);
        node.confirm(&stored, false);
        let stored = node.read_set(false);
        assert_eq!(stored.cutoffs, [(user("ada"), cutoff)]);
        assert!(stored.is_confirmed, "{key}");
    }
    // Junk of the right type is skipped.
    server.query::<()>(&["ZADD", "sb:revoked", "1764000000000000", "a b"]);
    assert_eq!(node.read_set(false).cutoffs, [(user("ada"), cutoff)]);
}

#[test]
fn revocation_is_stored_when_redis_has_no_memory_left() {
    let server = RedisServer::start();
    let mut node = BrokerNode::on(&server);
    server.query::<()>(&["CONFIG", "SET", "maxmemory", "1"]);
    let cutoff = Cutoff::at(Now::read().unix_ms);
    assert!(node.revoke("ada", cutoff));
    assert_eq!(node.read_set(true).cutoffs, [(user("ada"), cutoff)]);
}

#[test]
fn revocations_in_the_log_of_a_former_version_are_kept_in_the_set() {
    run(async {
        let (issuer, server) = (Issuer::new(), RedisServer::start());
        let redis = RedisSettings {
            addresses: vec![server.url().parse().expect("an address")],
            prefix: "switchboard".into(),
            authorities: None,
            allow_eviction: false,
            lease: LEASE,
        };
        let mut old = BrokerNode::with(redis, settings()).ready();
        let (token, now) = (issuer.token("ada", &[]), Now::read().unix_ms);
        let data = r#"{"do":"revoke","user":"ada"}"#;
        let publication = Arc::new(Publication {
            user: None,
            time: now,
            except: None,
            event: None,
            data: RawValue::from_string(data.into()).expect("JSON").into(),
        });
        let ticket = old.ask(|ticket| {
            Request::Log(LogRequest::Publish(PublishRequest {
                ticket,
                source: Source::Node,
                publish: Publish {
                    room: name("$control.revoked"),
                    key: None,
                    condition: None,
                    ephemeral: false,
                    others: false,
                    publication,
                },
            }))
        });
        old.answer(ticket).expect("published");
        let node = TestNode::with(|config| {
            issuer.secures(config);
            config.redis = vec![server.url().parse().expect("an address")];
        })
        .await;
        let refused = node.client().await.sign_in(&token).await;
        assert_eq!(refused["code"], "unauthorized", "{refused}");
        let score: String = server.query(&["ZSCORE", "switchboard:revoked", "ada"]);
        assert_eq!(score, (now + 5_000).to_string());
    });
}
