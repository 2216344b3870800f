//! Node metrics in `$nodes`: the reports of one node and of two over Redis, the reports when a node
//! is killed, restarts or stops or Redis is down, who may read them, and that no client may publish
//! there.

use std::time::Duration;

use serde_json::{Value, json};
use switchboard::model::pattern::Pattern;
use switchboard::model::rights::{Policy, Rule};
use switchboard::runtime;

use crate::support::backend::keys;
use crate::support::process::NodeProcess;
use crate::support::{Backend, Cluster, Issuer, TestClient, TestNode, run, within};

const ROOM: &str = "$nodes";

/// Every field, and whether it may be null, in the order of `docs/nodes.md`.
const FIELDS: [(&str, bool); 13] = [
    ("node", false),
    ("incarnation", false),
    ("version", false),
    ("state", false),
    ("uptime_s", false),
    ("connections", false),
    ("sessions", false),
    ("rooms", false),
    ("messages_in_per_s", false),
    ("messages_out_per_s", false),
    ("delivery_p99_ms", true),
    ("redis_round_trip_ms", true),
    ("resident_bytes", true),
];

/// Returns the next report of any node, and checks its fields.
async fn report(client: &mut TestClient) -> Value {
    let mut message = client.message(ROOM).await;
    assert_eq!(message["offset"], Value::Null, "it is kept nowhere");
    let report = message["data"].take();
    let fields = report.as_object().expect("an object");
    assert_eq!(fields.len(), FIELDS.len(), "{report}");
    for (index, (field, may_be_unknown)) in FIELDS.into_iter().enumerate() {
        let value = fields
            .get(field)
            .unwrap_or_else(|| panic!("no {field} in {report}"));
        let is_right = match index {
            0..4 => value.as_str().is_some_and(|text| !text.is_empty()),
            _ => value.as_f64().is_some_and(|number| number >= 0.0),
        };
        assert!(
            is_right || (may_be_unknown && value.is_null()),
            "{field} in {report}"
        );
    }
    report
}

/// Returns the next report of a node for which `fits` is true; others are skipped.
async fn report_of(client: &mut TestClient, node: &str, fits: impl Fn(&Value) -> bool) -> Value {
    let hearing = async {
        loop {
            let report = report(client).await;
            if report["node"] == node && fits(&report) {
                return report;
            }
        }
    };
    within(&format!("a report of {node} that fits"), hearing).await
}

#[test]
fn node_without_redis_reports_once_a_second() {
    run(async {
        let node = TestNode::start().await;
        let mut ada = node.client().await;
        ada.join(ROOM).await;
        let first = report(&mut ada).await;
        assert_eq!(first["node"], "test");
        assert_eq!(first["state"], "ready");
        assert_eq!(first["version"], env!("CARGO_PKG_VERSION"));
        assert_eq!(
            first["delivery_p99_ms"],
            Value::Null,
            "nothing was delivered"
        );
        assert_eq!(
            first["redis_round_trip_ms"],
            Value::Null,
            "there is no Redis"
        );
        assert_eq!(
            (&first["sessions"], &first["rooms"]),
            (&json!(1), &json!(1))
        );
        assert!(first["resident_bytes"].as_u64() > Some(1 << 20), "{first}");

        let mut bob = node.client().await;
        for client in [&mut ada, &mut bob] {
            client.join("lobby").await;
        }
        for n in 0..20 {
            bob.publish("lobby", json!(n)).await;
        }
        let busy = |report: &Value| report["messages_in_per_s"].as_f64() > Some(0.0);
        let busy_report = report_of(&mut ada, "test", busy).await;
        let [received, sent] =
            ["messages_in_per_s", "messages_out_per_s"].map(|field| busy_report[field].as_f64());
        assert!(
            sent > received,
            "each was sent to two clients: {busy_report}"
        );
        assert!(
            busy_report["delivery_p99_ms"].as_f64() > Some(0.0),
            "{busy_report}"
        );
        assert_eq!(
            (&busy_report["sessions"], &busy_report["rooms"]),
            (&json!(2), &json!(2))
        );
        let idle = |report: &Value| report["messages_in_per_s"] == json!(0.0);
        let later = report_of(&mut ada, "test", idle).await;
        assert_eq!(later["incarnation"], first["incarnation"]);
        assert!(
            later["uptime_s"].as_u64() > first["uptime_s"].as_u64(),
            "{later}"
        );
    });
}

#[test]
fn reports_of_all_nodes_arrive_on_each_and_a_restart_changes_the_incarnation() {
    run(async {
        let mut cluster = Cluster::start().await;
        let mut clients = [
            cluster.nodes[0].client().await,
            cluster.nodes[1].client().await,
        ];
        let mut runs = Vec::new();
        for client in &mut clients {
            client.join(ROOM).await;
            let knows = |report: &Value| !report["redis_round_trip_ms"].is_null();
            let mut incarnations = Vec::new();
            for node in ["n1", "n2"] {
                incarnations.push(report_of(client, node, knows).await["incarnation"].clone());
            }
            runs.push(incarnations);
        }
        assert_eq!(
            runs[0], runs[1],
            "both clients receive the same incarnations"
        );
        assert_ne!(runs[0][0], runs[0][1]);

        cluster.nodes[1].kill();
        cluster.nodes[1].exit().await;
        cluster.revive(1).await;
        let former = &runs[0][1];
        let is_new = |report: &Value| report["incarnation"] != *former;
        let again = report_of(&mut clients[0], "n2", is_new).await;
        assert!(again["uptime_s"].as_u64() < Some(20), "{again}");
    });
}

#[test]
fn reports_go_on_when_redis_is_back() {
    run(async {
        let mut cluster = Cluster::start().await;
        let mut ada = cluster.nodes[0].client().await;
        ada.join(ROOM).await;
        report(&mut ada).await;
        cluster.redis.restart();
        let mut after = 0;
        // Reports in flight may still arrive; two nodes cannot have ten of them.
        while after < 20 {
            report(&mut ada).await;
            after += 1;
        }
        let knows = |report: &Value| !report["redis_round_trip_ms"].is_null();
        for node in ["n1", "n2"] {
            report_of(&mut ada, node, knows).await;
        }
    });
}

#[test]
fn draining_node_reports_its_state_until_it_ends() {
    run(async {
        let cluster = Cluster::start().await;
        let mut ada = cluster.nodes[0].client().await;
        ada.join(ROOM).await;
        // The client does not read its close frame, so the node waits for it.
        let _deaf = cluster.nodes[1].client().await;
        cluster.nodes[1].terminate();
        let report = report_of(&mut ada, "n2", |report| report["state"] != "ready").await;
        assert_eq!(report["state"], "draining");
    });
}

#[test]
fn reading_needs_a_grant_for_the_room_and_publishing_is_refused() {
    run(async {
        let issuer = Issuer::new();
        let node = TestNode::with(|config| {
            issuer.secures(config);
            config.api_key_file = Some(keys());
        })
        .await;
        let join = json!({"type": "join", "room": ROOM});
        let data = json!({"node": "x", "incarnation": "y"});
        let publish = |ephemeral: bool| {
            json!({
                "type": "publish", "room": ROOM, "ephemeral": ephemeral, "data": data
            })
        };
        for (patterns, may_read) in [
            (None, false),
            (Some(&["*"][..]), false),
            (Some(&["nodes", "*nodes", "@*"][..]), false),
            (Some(&[ROOM][..]), true),
            (Some(&["$*"][..]), true),
        ] {
            let mut client = node.client().await;
            if let Some(patterns) = patterns {
                let reply = client.sign_in(&issuer.token("ada", patterns)).await;
                assert_eq!(reply["type"], "ok", "{reply}");
            }
            let joined = client.call(join.clone()).await;
            if may_read {
                assert_eq!(joined["type"], "ok", "{patterns:?}: {joined}");
                report(&mut client).await;
            } else {
                assert_eq!(joined["code"], "forbidden", "{patterns:?}: {joined}");
            }
            for ephemeral in [false, true] {
                let refused = client.call(publish(ephemeral)).await;
                assert_eq!(refused["code"], "forbidden", "{patterns:?}: {refused}");
            }
        }
        let mut backend = Backend::connect(node.address).await;
        for ephemeral in [false, true] {
            let body = json!({"data": 1, "ephemeral": ephemeral});
            let answer = backend.call("POST", "/rooms/$nodes/messages", body).await;
            assert_eq!(answer.status, 403, "{answer:?}");
        }
    });
}

#[test]
fn open_mode_lets_everyone_read_unless_a_rule_forbids_it() {
    run(async {
        for (policy, may_read) in [
            (None, true),
            (Some(Policy::Token), false),
            (Some(Policy::Public), true),
        ] {
            let node = TestNode::with(|config| {
                let rooms = Pattern::new(ROOM).expect("a pattern");
                config
                    .room
                    .extend(policy.map(|policy| Rule { rooms, policy }));
            })
            .await;
            let (anonymous, mut ada) = (node.client().await, node.client().await);
            ada.auth("ada").await;
            for mut client in [anonymous, ada] {
                let joined = client.call(json!({"type": "join", "room": ROOM})).await;
                assert_eq!(joined["type"] == "ok", may_read, "{policy:?}: {joined}");
                let publish = json!({"type": "publish", "room": ROOM, "data": 1});
                let refused = client.call(publish).await;
                assert_eq!(refused["code"], "forbidden", "{policy:?}: {refused}");
            }
            let mut backend = Backend::without_key(node.address).await;
            let answer = backend
                .call("POST", "/rooms/$nodes/messages", json!({"data": 1}))
                .await;
            assert_eq!(answer.status, 403, "{answer:?}");
        }
    });
}

/// A guess at what is practically idle: one per cent of a processor would matter on a small
/// machine.
#[test]
fn node_without_clients_is_practically_idle() {
    run(async {
        const LOOKED_AT: Duration = Duration::from_secs(5);
        let node = NodeProcess::start(&[]).await;
        let before = node.cpu_time();
        runtime::sleep(LOOKED_AT).await;
        let used = node.cpu_time() - before;
        assert!(used <= LOOKED_AT / 100, "{used:?} in {LOOKED_AT:?}");
    });
}
