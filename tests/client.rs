//! The Rust client against real nodes: recovery over a killed node, publishes that are repeated
//! until they are answered, and refusals that are final.

use serde_json::value::to_raw_value;
use switchboard::client::{
    Client, ClientCredentials, ClientError, ClientPublish, ClientSettings, RoomEvents,
};
use switchboard::config::ServerUrl;
use switchboard::model::secret::Secret;
use switchboard::{RoomEvent, RoomName};

use crate::support::process::command;
use crate::support::redis_server::RedisServer;
use crate::support::{Issuer, NodeProcess, TestNode, run, within};

fn room(name: &str) -> RoomName {
    RoomName::new(name).expect("a name")
}

fn start(url: &str, credentials: Option<ClientCredentials>) -> Client {
    let settings = ClientSettings {
        url: url.parse::<ServerUrl>().expect("a URL"),
        credentials,
        authorities: None,
    };
    Client::start(settings, flume::bounded(0).0).expect("it starts")
}

async fn publish(client: &Client, number: u64) -> Result<u64, ClientError> {
    let data = to_raw_value(&number).expect("JSON");
    let publish = client.publish(room("r"), data, ClientPublish::default());
    let position = within("the publish is answered", publish).await?;
    Ok(position.expect("it is stored").offset)
}

/// The data of the next messages, which must have these offsets.
async fn numbers(events: &RoomEvents, offsets: std::ops::RangeInclusive<u64>) -> Vec<String> {
    let mut numbers = Vec::new();
    for offset in offsets {
        let event = within("a message", events.recv_async()).await;
        match event.expect("the room goes on").expect("it is no error") {
            RoomEvent::Message(message) if message.offset == Some(offset) => {
                numbers.push(message.data.to_string());
            }
            other => panic!("expected message {offset}, got {other:?}"),
        }
    }
    numbers
}

#[test]
fn client_recovers_over_a_killed_node_and_repeats_its_publishes() {
    run(async {
        let redis = RedisServer::start();
        let url = redis.url();
        let node = NodeProcess::start(&["--redis", &url]).await;
        let address = node.address.to_string();
        let client = start(&format!("ws://{address}"), None);
        let (_, events) = within("the join", client.join(room("r"), None))
            .await
            .unwrap();
        assert_eq!(publish(&client, 1).await, Ok(1));

        node.kill();
        drop(node);
        let other = NodeProcess::start(&["--redis", &url]).await;
        let elsewhere = start(&format!("ws://{}", other.address), None);
        assert_eq!(publish(&elsewhere, 2).await, Ok(2));
        let (waiting, elsewhere) = (publish(&client, 3), async {
            let mut command = command(&["serve", "--redis", &url]);
            command.env("SWITCHBOARD_LISTEN", &address);
            NodeProcess::spawn(command).await
        });
        let (published, _node) = futures::join!(waiting, elsewhere);
        assert_eq!(published, Ok(3));
        assert_eq!(numbers(&events, 1..=3).await, ["1", "2", "3"]);
    });
}

#[test]
fn client_that_is_refused_for_good_ends_with_the_reason() {
    run(async {
        let issuer = Issuer::new();
        let node = TestNode::with(|config| issuer.secures(config)).await;
        let url = format!("ws://{}", node.address);
        let token = ClientCredentials::Token(Secret::new("not.a.token".into()));
        let client = start(&url, Some(token));
        for _ in 0..2 {
            match publish(&client, 1).await {
                Err(ClientError::Refused(error)) => {
                    assert_eq!(error.code.as_str(), "unauthorized");
                }
                other => panic!("{other:?}"),
            }
        }
        let client = start(&format!("{url}/elsewhere"), None);
        assert!(matches!(
            publish(&client, 1).await,
            Err(ClientError::Handshake(_))
        ));
    });
}

#[test]
fn client_that_stops_reading_recovers_what_it_missed() {
    run(async {
        let node = TestNode::with(|config| {
            config.outbox_frames = 64;
        })
        .await;
        let url = format!("ws://{}", node.address);
        let client = start(&url, None);
        let (_, events) = within("the join", client.join(room("r"), None))
            .await
            .unwrap();
        let writer = start(&url, None);
        const COUNT: u64 = 500;
        for number in 1..=COUNT {
            publish(&writer, number).await.expect("it is stored");
        }
        let numbers = numbers(&events, 1..=COUNT).await;
        assert!((1..=COUNT).map(|number| number.to_string()).eq(numbers));
    });
}
