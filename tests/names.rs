//! Names as issuers of tokens and applications have them (`auth0|5f7c8ec7`, `team/1`), on two nodes
//! with one Redis: signing in, direct messages, presence, paths of the API, revocation.

use serde_json::{Value, json};

use crate::support::redis_server::RedisServer;
use crate::support::{Backend, Issuer, TestNode, run};

#[test]
fn users_and_rooms_with_any_signs_work_on_two_nodes() {
    run(async {
        let redis = RedisServer::start();
        let issuer = Issuer::new();
        let node = || {
            TestNode::with(|config| {
                issuer.secures(config);
                config.redis = vec![redis.url().parse().unwrap()];
                config.api_key_file = Some(crate::support::backend::keys());
            })
        };
        let (one, two) = (node().await, node().await);
        let rooms = ["*", "@*"];
        let (first, second) = ("auth0|5f7c8ec7", "ada@example.com");
        let mut auth0 = one.client().await;
        let signed = auth0.sign_in(&issuer.token(first, &rooms)).await;
        assert_eq!(
            (&signed["user"], &signed["room"]),
            (&json!(first), &json!("@auth0%7C5f7c8ec7"))
        );
        let mut ada = two.client().await;
        let signed = ada.sign_in(&issuer.token(second, &rooms)).await;
        assert_eq!(signed["room"], "@ada%40example.com");

        ada.publish("@auth0%7C5f7c8ec7", json!("psst")).await;
        let direct = auth0.message("@auth0%7C5f7c8ec7").await;
        assert_eq!(
            (&direct["user"], &direct["data"]),
            (&json!(second), &json!("psst"))
        );

        for room in ["team/1", "a=b", "user#1"] {
            auth0.join(room).await;
            ada.join(room).await;
            assert_eq!(auth0.publish(room, json!(room)).await, 1);
            assert_eq!(ada.message(room).await["user"], first);
        }
        while auth0.push("joined").await["user"] != second {}
        let listed = ada.call(json!({"type": "members", "room": "team/1"})).await;
        let users = listed["members"]
            .as_array()
            .unwrap()
            .iter()
            .map(|member| &member["user"]);
        assert_eq!(users.collect::<Vec<_>>(), [second, first]);

        let mut backend = Backend::connect(one.address).await;
        for path in ["/rooms/team%2F1", "/rooms/-"] {
            let query = if path == "/rooms/-" {
                "?room=team/1"
            } else {
                ""
            };
            let page = format!("{path}/messages{query}");
            let page = backend.ok("GET", &page, Value::Null).await;
            assert_eq!(page["messages"][0]["data"], "team/1", "{path}");
        }
        let split = backend
            .call("GET", "/rooms/team/1/messages", Value::Null)
            .await;
        assert_eq!(split.status, 404);
        let path = "/users/auth0%7C5f7c8ec7/connections";
        let connections = backend.ok("GET", path, Value::Null).await;
        assert_eq!(connections["connections"].as_array().unwrap().len(), 1);
        let revoke = format!("{path}?forbid_return=true");
        backend.ok("DELETE", &revoke, Value::Null).await;
        let (code, _) = auth0.closed().await.unwrap();
        assert_eq!(code, 3500);
        ada.publish("team/1", json!("still here")).await;
    });
}
