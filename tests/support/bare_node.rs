//! A node without a dispatcher: connections are served, and the test receives their events.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use switchboard::api::Gate;
use switchboard::auth::Auth;
use switchboard::dispatcher::Event;
use switchboard::http::HeadLimits;
use switchboard::metrics::Metrics;
use switchboard::model::readiness::Readiness;
use switchboard::outbox::OutboxLimits;
use switchboard::transport::limits::IngressLimits;
use switchboard::transport::pages::Assets;
use switchboard::transport::{Limits, Node};

/// The shared part of a node whose dispatcher is the test itself.
pub fn node_of(inbox: flume::Sender<Event>) -> Arc<Node> {
    let readiness = Readiness::default();
    readiness.set_broker(true);
    let time = Duration::from_secs(60);
    Arc::new(Node {
        assets: Assets::embedded(),
        readiness,
        metrics: Arc::new(Metrics::default()),
        inbox,
        limits: Limits {
            head: HeadLimits::default(),
            head_timeout: time,
            idle_timeout: time,
            call_timeout: time,
            calls: 1024,
            close_timeout: time,
            message: 65_536,
            depth: 64,
            ingress: IngressLimits {
                commands: None,
                bytes: None,
                rate_timeout: time,
                fragments: 1024,
                message_timeout: time,
            },
            outbox: OutboxLimits {
                bytes: 65_536,
                frames: 16,
            },
        },
        auth: Auth::Open,
        hooks: Arc::default(),
        own_hosts: None,
        origins: Vec::new(),
        trusted_proxies: Vec::new(),
        addresses: None,
        shared_quotas: None,
        refusals: Default::default(),
        echo_path: Some("/echo".into()),
        gate: Gate::Local,
        api_separate: false,
        calls: flume::bounded(1).0.downgrade(),
        sessions: AtomicU64::new(1),
        started: Instant::now(),
    })
}
