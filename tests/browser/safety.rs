//! Attacks through pages of other origins, and with hostile content on our own.

use std::net::SocketAddr;
use std::pin::pin;

use futures::future::{Either, select};
use futures::{AsyncReadExt, AsyncWriteExt};
use serde_json::json;
use switchboard::runtime::Listener;

use super::{enter, is_open, send_message, shown, shows};
use crate::support::browser::{Browser, browse};
use crate::support::{Cluster, Issuer, NodeProcess};

#[test]
fn a_page_of_another_origin_cannot_connect() {
    browse(async {
        let node = NodeProcess::start(&[]).await;
        let listener = Listener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port");
        let foreign = format!("http://{}/", listener.local_addr());
        let test = async {
            let mut browser = Browser::start();
            let page = browser.page(&foreign).await;
            let url = json!(format!("ws://{}/ws", node.address));
            assert_eq!(
                page.script_async(CONNECT, vec![url.clone()]).await,
                "refused"
            );
            // The node is running, and accepts its own pages.
            page.goto(&format!("http://{}/", node.address)).await;
            assert_eq!(page.script_async(CONNECT, vec![url]).await, "connected");
        };
        match select(pin!(test), pin!(serve_blank_pages(listener))).await {
            Either::Left(_) => {}
            Either::Right(((), _)) => panic!("the pages end with the test"),
        }
    });
}

/// Tries to open a WebSocket and returns the result.
const CONNECT: &str = "
    const [url, done] = arguments;
    const socket = new WebSocket(url);
    socket.onopen = () => done('connected');
    socket.onerror = () => done('refused');
";

#[test]
fn page_may_send_its_token_as_a_subprotocol() {
    browse(async {
        let issuer = Issuer::new();
        let node = NodeProcess::start(&["--token-secret-file", &issuer.path()]).await;
        let mut browser = Browser::start();
        let page = browser.page(&format!("http://{}/", node.address)).await;
        let token = issuer.token("ada", &["lobby"]);
        let url = json!(format!("ws://{}/ws", node.address));
        let result = page
            .script_async(OFFER, vec![url.clone(), json!(token)])
            .await;
        assert_eq!(result, json!(["switchboard", "ada"]));
        let forged = format!("{}x", &token[..token.len() - 1]);
        let result = page.script_async(OFFER, vec![url, json!(forged)]).await;
        assert_eq!(result, "refused");
    });
}

/// Offers a token and returns the chosen subprotocol and the user of the welcome.
const OFFER: &str = "
    const [url, token, done] = arguments;
    const socket = new WebSocket(url, ['switchboard', `bearer.${token}`]);
    socket.onmessage = ({ data }) => done([socket.protocol, JSON.parse(data).user]);
    socket.onerror = () => done('refused');
";

async fn serve_blank_pages(listener: Listener) {
    loop {
        let (mut socket, _) = listener.accept().await.expect("a connection");
        // One read holds a browser's small request; a browser opens some connections ahead and
        // sends nothing on them.
        let answering = async {
            let _ = socket.read(&mut [0; 4096]).await;
            let page = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 15\r\n\
                        Connection: close\r\n\r\n<!doctype html>";
            let _ = socket.write_all(page.as_bytes()).await;
            let _ = socket.close().await;
        };
        let _ = switchboard::runtime::timeout(std::time::Duration::from_secs(1), answering).await;
    }
}

#[test]
fn page_obeys_its_content_security_policy() {
    browse(async {
        let node = NodeProcess::start(&[]).await;
        let mut browser = Browser::start();
        let page = browser.page(&format!("http://{}/", node.address)).await;
        enter(&page, "ada", "lobby").await;
        send_message(&page, "hello").await;
        shows(&page, "ada", "hello").await;
        let console = page.console().await;
        let complaints: Vec<_> = console
            .iter()
            .filter(|entry| entry["level"] != "INFO")
            .collect();
        assert!(complaints.is_empty(), "{complaints:#?}");

        page.script(INJECT, vec![]).await;
        let blocked = "return window.blocked.length >= 2 && window.blocked.sort()";
        let blocked = page.until("the policy holds", blocked, vec![]).await;
        assert_eq!(blocked, json!(["script-src-attr", "script-src-elem"]));
        assert_eq!(
            page.script("return window.hacked ?? null", vec![]).await,
            json!(null)
        );
    });
}

/// What a vulnerable page would let an attacker do.
const INJECT: &str = "
    window.blocked = [];
    document.addEventListener('securitypolicyviolation', (event) =>
        blocked.push(event.effectiveDirective));
    const script = document.createElement('script');
    script.textContent = 'window.hacked = true';
    document.body.append(script);
    document.body.insertAdjacentHTML('beforeend',
        '<img src=\"/nothing\" onerror=\"window.hacked = true\">');
";

#[test]
fn hostile_messages_are_shown_as_text() {
    browse(async {
        let cluster = Cluster::start().await;
        let mut browser = Browser::start();
        let url = format!("http://{}/?name=bob#lobby", cluster.nodes[0].address);
        let page = browser.page(&url).await;
        is_open(&page).await;
        let mut stranger = cluster.nodes[1].client().await;
        stranger.auth("eve").await;
        let long = "x".repeat(10_000);
        let hostile = [
            "<img src=x onerror=\"window.hacked = true\">",
            "</li><script>window.hacked = true</script>",
            "javascript:window.hacked=true",
            "\u{202e}txet desrever\u{202c} \u{2067}שלום\u{2069} مرحبا",
            "line\nbreaks\n\n\nand\ttabs",
            "👩‍👩‍👧‍👦 e\u{301}\u{301}\u{301}\u{301}",
            &long,
        ];
        let mut wanted = Vec::new();
        for text in hostile {
            stranger.publish("lobby", json!({"text": text})).await;
            wanted.push(("eve".to_owned(), text.to_owned()));
        }
        // Data that is not a chat text.
        for data in [
            json!(7),
            json!(null),
            json!({"text": {"a": ["<b>"]}}),
            json!([1, 2]),
        ] {
            stranger.publish("lobby", data.clone()).await;
            wanted.push(("eve".to_owned(), data.to_string()));
        }
        stranger.publish("lobby", json!("the end")).await;
        wanted.push(("eve".to_owned(), "the end".to_owned()));
        shows(&page, "eve", "the end").await;
        assert_eq!(shown(&page).await, wanted);
        // A display name in the member list, a direct message, and direct data that is not a text.
        let name = "<img src=x onerror=\"window.hacked = true\">\u{202e}";
        stranger
            .call(json!({"type": "auth", "user": "eve", "info": {"name": name}}))
            .await;
        stranger.join("lobby").await;
        stranger
            .publish(
                "@bob",
                json!({"text": hostile[0], "to": "<b>", "id": {"a": 1}}),
            )
            .await;
        stranger.publish("@bob", json!({"read": "<b>"})).await;
        let named = "return [...document.querySelectorAll('#people-list .name')]
                         .some((name) => name.textContent === arguments[0])";
        page.until("the name", named, vec![json!(name)]).await;
        page.until(
            "the talk",
            "return document.querySelector('#directs button') !== null",
            vec![],
        )
        .await;
        page.click("#directs button").await;
        shows(&page, "eve", hostile[0]).await;
        let made = "const found = 'body img:not(.mark), body script, body b';
                    return [window.hacked ?? null, document.querySelectorAll(found).length]";
        assert_eq!(page.script(made, vec![]).await, json!([null, 0]));
        let console = page.console().await;
        assert!(
            console.iter().all(|entry| entry["level"] == "INFO"),
            "{console:#?}"
        );
    });
}
