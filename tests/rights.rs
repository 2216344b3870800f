//! Rights in rooms over real sockets: rules of the node, grants of tokens, and personal rooms of
//! users, on one node and on two.

use serde_json::{Value, json};
use switchboard::config::Config;
use switchboard::model::pattern::Pattern;
use switchboard::model::rights::{Policy, Rule};

use crate::support::process::NodeProcess;
use crate::support::redis_server::RedisServer;
use crate::support::{Issuer, TestClient, TestNode, run};

fn rule(config: &mut Config, pattern: &str, policy: Policy) {
    let rooms = Pattern::new(pattern).expect("a pattern");
    config.room.push(Rule { rooms, policy });
}

/// The code of the refusal, or `ok`.
async fn outcome(client: &mut TestClient, command: Value) -> String {
    let reply = client.call(command).await;
    let code = match reply["type"].as_str() {
        Some("ok") => &reply["type"],
        _ => &reply["code"],
    };
    code.as_str().expect("a code").to_owned()
}

fn commands(room: &str) -> [Value; 3] {
    [
        json!({"type": "join", "room": room}),
        json!({"type": "publish", "room": room, "data": 1}),
        json!({"type": "history", "room": room}),
    ]
}

async fn outcomes(client: &mut TestClient, room: &str) -> [bool; 3] {
    let mut all = [false; 3];
    for (index, command) in commands(room).into_iter().enumerate() {
        let outcome = outcome(client, command).await;
        assert!(outcome == "ok" || outcome == "forbidden", "{outcome}");
        all[index] = outcome == "ok";
    }
    all
}

#[test]
fn rules_and_grants_decide_each_action_for_itself() {
    run(async {
        let issuer = Issuer::new();
        let node = TestNode::with(|config| {
            issuer.secures(config);
            rule(config, "lobby", Policy::Public);
            rule(config, "hall", Policy::Users);
            rule(config, "news", Policy::ReadOnly);
            rule(config, "feed", Policy::Server);
        })
        .await;
        let mut anonymous = node.client().await;
        let mut ada = node.client().await;
        let lists: [&[&str]; 4] = [&["a.*", "feed"], &["a.1", "feed", "news"], &["b"], &[]];
        let token = issuer.signed("ada", std::time::Duration::from_secs(60), lists);
        assert_eq!(ada.sign_in(&token).await["user"], "ada");
        for (room, without_token, signed_in) in [
            ("lobby", [true; 3], [true; 3]),
            ("hall", [false; 3], [true; 3]),
            ("news", [true, false, true], [true; 3]),
            ("feed", [false; 3], [true, false, false]),
            ("a.1", [false; 3], [true, true, false]),
            ("a.2", [false; 3], [true, false, false]),
            ("b", [false; 3], [false, false, true]),
            ("c", [false; 3], [false; 3]),
            ("$nodes", [false; 3], [false; 3]),
        ] {
            assert_eq!(
                outcomes(&mut anonymous, room).await,
                without_token,
                "{room}"
            );
            assert_eq!(outcomes(&mut ada, room).await, signed_in, "{room}");
        }
        let refused = anonymous.call(commands("hall")[0].clone()).await;
        assert!(
            refused["reason"].as_str().unwrap().contains("sign in"),
            "{refused}"
        );
    });
}

#[test]
fn refreshed_token_revokes_rights_and_notifies_the_client() {
    run(async {
        let issuer = Issuer::new();
        let node = TestNode::with(|config| issuer.secures(config)).await;
        let (mut ada, mut bob) = (node.client().await, node.client().await);
        ada.sign_in(&issuer.token("ada", &["a", "b"])).await;
        bob.sign_in(&issuer.token("bob", &["a", "b"])).await;
        for room in ["a", "b"] {
            ada.join(room).await;
            assert_eq!(ada.push("joined").await["room"], room);
        }
        let reply = ada.sign_in(&issuer.token("ada", &["b"])).await;
        assert_eq!(reply["type"], "ok", "{reply}");
        assert_eq!(ada.push("removed").await["room"], "a");
        bob.publish("a", json!(1)).await;
        bob.publish("b", json!(2)).await;
        assert_eq!(ada.message("b").await["data"], 2);
        ada.expect_silence().await;
    });
}

#[test]
fn users_in_open_mode_write_to_each_other_and_read_only_their_own() {
    run(async {
        let node = TestNode::start().await;
        let (mut ada, mut bob) = (node.client().await, node.client().await);
        let signed_in = ada.call(json!({"type": "auth", "user": "ada"})).await;
        assert_eq!(
            (&signed_in["room"], &signed_in["offset"]),
            (&json!("@ada"), &json!(0))
        );
        let sent = bob
            .call(json!({"type": "publish", "room": "@ada", "data": 1}))
            .await;
        assert_eq!(sent["code"], "forbidden", "the sender is unknown: {sent}");
        bob.auth("bob").await;
        bob.publish("@ada", json!("psst")).await;
        let message = ada.message("@ada").await;
        assert_eq!(
            (&message["user"], &message["data"]),
            (&json!("bob"), &json!("psst"))
        );
        assert_eq!(outcomes(&mut bob, "@ada").await, [false, true, false]);
        let again = bob.call(json!({"type": "auth", "user": "bob"})).await;
        assert_eq!(again["type"], "ok", "{again}");
        let other = bob.call(json!({"type": "auth", "user": "eve"})).await;
        assert_eq!(other["code"], "forbidden", "{other}");
        bob.publish("@ada", json!("still bob")).await;
        ada.message("@ada").await;
        assert_eq!(ada.message("@ada").await["user"], "bob");
    });
}

#[test]
fn direct_messages_reach_every_device_on_both_nodes_and_wait_for_those_who_are_away() {
    run(async {
        let issuer = Issuer::new();
        let (redis, secret) = (RedisServer::start(), issuer.path());
        let (url, mut nodes) = (redis.url(), Vec::new());
        for _ in 0..2 {
            let arguments = ["--redis", &url, "--token-secret-file", &secret];
            let node = NodeProcess::start(&arguments).await;
            crate::support::cluster::ready(node.address).await;
            nodes.push(node);
        }
        let ada = issuer.token("ada", &["@bob"]);
        let bearer = format!("Bearer {}", issuer.token("bob", &["@ada"]));
        let (mut phone, mut laptop) = (nodes[0].client().await, nodes[1].client().await);
        let place = phone.sign_in(&ada).await;
        assert_eq!(laptop.sign_in(&ada).await["epoch"], place["epoch"]);
        let headers = [("authorization", bearer.as_str())];
        let connected = TestClient::with(nodes[1].address, "", &headers).await;
        let mut bob = connected.expect("the token is good");
        assert_eq!(bob.welcome["user"], "bob");
        let joined = bob.push("ok").await;
        assert_eq!(
            (&joined["room"], &joined["offset"]),
            (&json!("@bob"), &json!(0))
        );

        // Both ways between the nodes.
        bob.publish("@ada", json!(1)).await;
        for device in [&mut phone, &mut laptop] {
            assert_eq!(device.message("@ada").await["data"], 1);
        }
        phone.publish("@bob", json!(2)).await;
        assert_eq!(bob.message("@bob").await["user"], "ada");

        // The phone disconnects, and rejoins on the other node with its position.
        drop(phone);
        for n in 2..=4 {
            bob.publish("@ada", json!(n)).await;
        }
        let mut phone = nodes[1].client().await;
        phone.sign_in(&ada).await;
        let joined = phone.rejoin("@ada", &place["epoch"], 1).await;
        assert_eq!(joined["recovered"], true, "{joined}");
        for n in 2..=4 {
            assert_eq!(phone.message("@ada").await["data"], n);
            assert_eq!(laptop.message("@ada").await["data"], n);
        }
        assert_eq!(outcomes(&mut bob, "@ada").await, [false, true, false]);
    });
}
