//! What nginx forwards to the nodes: the origin of a page, the address of a client, and that
//! queries are not logged.

use std::net::{Ipv4Addr, SocketAddr};

use async_tungstenite::tungstenite::client::IntoClientRequest;
use async_tungstenite::tungstenite::http::HeaderValue;
use async_tungstenite::tungstenite::{Error, Message};
use futures::StreamExt;
use serde_json::Value;
use switchboard::runtime;

use crate::support::http::get;
use crate::support::{Cluster, DEADLINE, eventually, run, within};

#[test]
fn a_page_of_another_site_is_refused_and_one_of_the_same_host_and_port_passes() {
    run(async {
        let cluster = Cluster::start().await;
        let address = cluster.nginx.address;
        let other_port = format!("http://{}", cluster.nodes[0].address);
        for origin in [
            "http://evil.example",
            "http://127.0.0.1",
            &other_port,
            "null",
        ] {
            let refused = handshake(address, "/ws", &[("Origin", origin)]).await;
            assert_eq!(refused, Err(403), "{origin}");
        }
        let same = format!("http://{address}");
        assert_eq!(
            handshake(address, "/ws", &[("Origin", &same)]).await,
            Ok(())
        );
        assert_eq!(handshake(address, "/ws", &[]).await, Ok(()));
    });
}

#[test]
fn client_address_is_taken_from_the_trusted_proxy_only() {
    run(async {
        let cluster = Cluster::start().await;
        let home = Ipv4Addr::new(127, 0, 0, 5);
        // The address that the client claims precedes the one that nginx adds.
        let request = "GET /ws HTTP/1.1\r\nHost: {host}\r\n\
                       X-Forwarded-For: 203.0.113.7\r\nConnection: Upgrade\r\n\
                       Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        let request = request.replace("{host}", &cluster.nginx.address.to_string());
        let _socket = send_from(home, cluster.nginx.address, request.as_bytes());
        let connected = || -> Vec<String> {
            let lines = cluster.nodes.iter().flat_map(|node| node.log());
            let facts = lines.filter_map(|line| serde_json::from_str::<Value>(&line).ok());
            let connected = facts.filter(|fact| fact["msg"] == "connected");
            connected.map(|fact| fact["client"].to_string()).collect()
        };
        eventually("a node logs the connection", || !connected().is_empty()).await;
        assert_eq!(connected(), ["\"127.0.0.5\""]);
    });
}

#[test]
fn query_is_never_logged() {
    run(async {
        let cluster = Cluster::start().await;
        let address = cluster.nginx.address;
        get(address, "/?token=SECRET").await;
        assert_eq!(handshake(address, "/ws?token=SECRET", &[]).await, Ok(()));
        cluster.nodes[0].kill();
        cluster.nodes[1].kill();
        // No node is running, so nginx logs an error for each request.
        get(address, "/readyz?token=SECRET").await;
        eventually("nginx has noted the requests", || {
            let log = cluster.nginx.access_log();
            ["GET / 200", "GET /ws 101", "GET /readyz "]
                .iter()
                .all(|line| log.contains(line))
        })
        .await;
        let noted = cluster.nginx.access_log() + &cluster.nginx.errors();
        assert!(!noted.contains("SECRET"), "{noted}");
        let logs = cluster.nodes.iter().flat_map(|node| node.log());
        assert!(logs.into_iter().all(|line| !line.contains("SECRET")));
    });
}

/// Whether a WebSocket begins, or the status of the refusal.
async fn handshake(
    address: SocketAddr,
    path: &str,
    fields: &[(&'static str, &str)],
) -> Result<(), u16> {
    let mut request = format!("ws://{address}{path}")
        .into_client_request()
        .expect("a request");
    for (name, value) in fields {
        let value = HeaderValue::from_str(value).expect("a value");
        request.headers_mut().insert(*name, value);
    }
    let socket = runtime::connect(address, DEADLINE)
        .await
        .expect("nginx listens");
    let shaking = async_tungstenite::client_async(request, socket);
    match within("the handshake", shaking).await {
        Ok((mut stream, _)) => {
            let welcome = within("the welcome", stream.next()).await;
            assert!(matches!(welcome, Some(Ok(Message::Text(_)))), "{welcome:?}");
            Ok(())
        }
        Err(Error::Http(response)) => Err(response.status().as_u16()),
        Err(error) => panic!("{error}"),
    }
}

/// Sends bytes from an address of this machine that is not the usual one.
fn send_from(home: Ipv4Addr, to: SocketAddr, bytes: &[u8]) -> socket2::Socket {
    use socket2::{Domain, Socket, Type};
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    let from = SocketAddr::from((home, 0));
    socket
        .bind(&from.into())
        .expect("all of 127.0.0.0/8 is this machine");
    socket.connect(&to.into()).expect("nginx listens");
    let sent = socket.send(bytes).expect("the socket is open");
    assert_eq!(sent, bytes.len(), "a new socket takes this much");
    socket
}
