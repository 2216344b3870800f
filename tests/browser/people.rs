//! Members, typing and direct messages, as pages on two nodes show them.

use serde_json::{Value, json};

use super::{enter, is_open, send_message, shown, shows};
use crate::support::browser::{Browser, Page, browse};
use crate::support::{Cluster, TestClient};

/// A page on one of the nodes, in the lobby.
async fn person(browser: &mut Browser, cluster: &Cluster, node: usize, name: &str) -> Page {
    let page = browser.page(&address(cluster, node)).await;
    enter(&page, name, "lobby").await;
    page
}

fn address(cluster: &Cluster, node: usize) -> String {
    format!("http://{}/", cluster.nodes[node].address)
}

/// Waits until the member list shows these names and details: `bob 2 devices`.
async fn lists(page: &Page, people: &[&str]) {
    page.until(&format!("{people:?} are here"), HERE, vec![json!(people)])
        .await;
}

/// Clicks the room again, because the page reads the devices again only then.
const HERE: &str = "
    document.querySelector('#rooms button').click();
    const rows = [...document.querySelectorAll('#people-list .label')];
    const texts = rows.map((row) =>
        [...row.querySelectorAll('.name, .details')].map((part) => part.textContent).join(' '));
    return JSON.stringify(texts) === JSON.stringify(arguments[0]);
";

/// The lines about joins and leaves.
async fn presence_lines(page: &Page) -> Value {
    let script =
        "return [...document.querySelectorAll('.comings')].map((line) => line.textContent)";
    page.script(script, vec![]).await
}

async fn shows_presence(page: &Page, line: &str) {
    let script = "return [...document.querySelectorAll('.comings')]
                      .some((line) => line.textContent === arguments[0])";
    page.until(line, script, vec![json!(line)]).await;
}

async fn leave_page(page: &Page) {
    page.goto("about:blank").await;
}

/// Another client in the lobby, without a page.
async fn other(cluster: &Cluster, node: usize, name: &str) -> TestClient {
    let mut client = cluster.nodes[node].client().await;
    client.auth(name).await;
    client.join("lobby").await;
    client
}

#[test]
fn user_with_many_devices_is_listed_once_until_the_last_leaves() {
    browse(async {
        let cluster = Cluster::start().await;
        let mut browser = Browser::start();
        let ada = person(&mut browser, &cluster, 0, "ada").await;
        let laptop = person(&mut browser, &cluster, 1, "bob").await;
        lists(&ada, &["ada", "bob"]).await;
        lists(&laptop, &["bob", "ada"]).await;
        shows_presence(&ada, "bob joined").await;
        let phone = person(&mut browser, &cluster, 0, "bob").await;
        lists(&ada, &["ada", "bob 2 devices"]).await;
        let mut anonymous = cluster.nodes[1].client().await;
        anonymous.join("lobby").await;
        let nameless = "document.querySelector('#rooms button').click();
                        const rest = document.getElementById('people-rest');
                        return rest.textContent === 'and 1 without a name'";
        ada.until("a number of the others", nameless, vec![]).await;

        leave_page(&laptop).await;
        lists(&ada, &["ada", "bob"]).await;
        send_message(&phone, "Still here").await;
        shows(&ada, "bob", "Still here").await;
        assert_eq!(presence_lines(&ada).await, json!(["bob joined"]));
        leave_page(&phone).await;
        shows_presence(&ada, "bob left").await;
        lists(&ada, &["ada"]).await;
    });
}

#[test]
fn reload_shows_no_leave_and_no_join() {
    browse(async {
        let cluster = Cluster::start().await;
        let mut browser = Browser::start();
        let ada = person(&mut browser, &cluster, 0, "ada").await;
        let bob = person(&mut browser, &cluster, 1, "bob").await;
        let cy = other(&cluster, 1, "cy").await;
        lists(&ada, &["ada", "bob", "cy"]).await;
        send_message(&ada, "hello").await;
        for page in [&ada, &bob] {
            shows(page, "ada", "hello").await;
        }
        for _ in 0..2 {
            bob.reload().await;
            is_open(&bob).await;
        }
        // A leave after the message is shown after it.
        drop(cy);
        shows_presence(&ada, "cy left").await;
        let lines = presence_lines(&ada).await;
        assert_eq!(
            lines.as_array().and_then(|lines| lines.last()),
            Some(&json!("cy left"))
        );
        assert!(!lines.to_string().contains("bob left"), "{lines}");
        lists(&ada, &["ada", "bob"]).await;
    });
}

#[test]
fn member_list_is_correct_after_a_node_kill_and_an_emptied_redis() {
    browse(async {
        let mut cluster = Cluster::start().await;
        let mut browser = Browser::start();
        let url = format!("http://{}/", cluster.nginx.address);
        let ada = person(&mut browser, &cluster, 0, "ada").await;
        let bob = browser.page(&format!("{url}?name=bob#lobby")).await;
        lists(&ada, &["ada", "bob"]).await;
        lists(&bob, &["bob", "ada"]).await;
        let _cy = other(&cluster, 0, "cy").await;
        let _dot = other(&cluster, 1, "dot").await;
        lists(&ada, &["ada", "bob", "cy", "dot"]).await;
        cluster.nodes[1].kill();
        lists(&ada, &["ada", "bob", "cy"]).await;
        lists(&bob, &["bob", "ada", "cy"]).await;
        cluster.redis.restart();
        let _fay = other(&cluster, 0, "fay").await;
        lists(&ada, &["ada", "bob", "cy", "fay"]).await;
        lists(&bob, &["bob", "ada", "cy", "fay"]).await;
    });
}

async fn typing(page: &Page, words: &str) {
    let script = "return document.getElementById('typing').textContent === arguments[0]";
    page.until(words, script, vec![json!(words)]).await;
}

/// Publishes that the user is typing, or has stopped.
async fn types(client: &mut TestClient, is: bool) {
    let publish =
        json!({"type": "publish", "room": "lobby", "ephemeral": true, "data": {"typing": is}});
    let answer = client.call(publish).await;
    assert_eq!(answer["type"], "ok", "{answer}");
}

#[test]
fn typing_is_shown_expires_and_is_not_stored() {
    browse(async {
        let cluster = Cluster::start().await;
        let mut browser = Browser::start();
        let ada = person(&mut browser, &cluster, 0, "ada").await;
        let bob = person(&mut browser, &cluster, 1, "bob").await;
        let mut cy = other(&cluster, 1, "cy").await;
        let mut phone = other(&cluster, 1, "ada").await;
        lists(&bob, &["bob", "ada 2 devices", "cy"]).await;
        // Her other device shows no typing of her own.
        types(&mut phone, true).await;
        types(&mut cy, true).await;
        bob.fill("#message", "I").await;
        typing(&ada, "cy and bob are typing…").await;
        types(&mut phone, false).await;
        types(&mut cy, true).await;
        typing(&bob, "cy is typing…").await;
        bob.fill("#message", "done\u{e007}").await;
        shows(&ada, "bob", "done").await;
        types(&mut cy, true).await;
        typing(&ada, "cy is typing…").await;
        types(&mut cy, false).await;
        typing(&ada, "").await;
        // The typing of a client that disconnects expires.
        bob.fill("#message", "Wait").await;
        typing(&ada, "bob is typing…").await;
        leave_page(&bob).await;
        typing(&ada, "").await;
        assert_eq!(shown(&ada).await, [("bob".to_owned(), "done".to_owned())]);
        let mut reader = cluster.nodes[0].client().await;
        let page = reader
            .call(json!({"type": "history", "room": "lobby"}))
            .await;
        let kept = page["messages"].as_array().map(Vec::len);
        assert_eq!(kept, Some(1), "{page}");
    });
}

/// Opens the direct conversation with a member.
async fn write_to(page: &Page, user: &str) {
    let script = "const name = (row) => row.querySelector('.name').textContent;
                  const row = [...document.querySelectorAll('button.person')]
                      .find((row) => name(row) === arguments[0]);
                  row?.click();
                  return row !== undefined";
    page.until(user, script, vec![json!(user)]).await;
}

/// Waits until the direct conversations and their unread counts are these: `bob 1`.
async fn directs(page: &Page, talks: &[&str]) {
    let script = "const tabs = [...document.querySelectorAll('#directs button')];
                  const texts = tabs.map((tab) =>
                      [...tab.querySelectorAll('.label, .unread')]
                          .map((part) => part.firstChild.textContent).join(' '));
                  return JSON.stringify(texts) === JSON.stringify(arguments[0])";
    page.until(&format!("{talks:?}"), script, vec![json!(talks)])
        .await;
}

fn talk(lines: &[(&str, &str)]) -> Vec<(String, String)> {
    let own = |(sender, text): &(&str, &str)| ((*sender).to_owned(), (*text).to_owned());
    lines.iter().map(own).collect()
}

#[test]
fn direct_message_reaches_all_devices_of_both_users_and_no_other() {
    browse(async {
        let cluster = Cluster::start().await;
        let mut browser = Browser::start();
        let laptop = person(&mut browser, &cluster, 0, "ada").await;
        let phone = person(&mut browser, &cluster, 1, "ada").await;
        let bob = person(&mut browser, &cluster, 1, "bob").await;
        let mut cy = other(&cluster, 0, "cy").await;
        write_to(&laptop, "bob").await;
        bob.fill("#message", "not to be sent").await;
        send_message(&laptop, "psst").await;
        shows(&laptop, "ada", "psst").await;
        directs(&bob, &["ada 1"]).await;
        // A user's own message is not unread on another device.
        directs(&phone, &["bob"]).await;

        bob.click("#directs button").await;
        shows(&bob, "ada", "psst").await;
        directs(&bob, &["ada"]).await;
        bob.fill("#message", "y").await;
        typing(&laptop, "bob is typing…").await;
        bob.fill("#message", "yes?\u{e007}").await;
        shows(&laptop, "bob", "yes?").await;
        phone.click("#directs button").await;
        for page in [&laptop, &phone, &bob] {
            shows(page, "bob", "yes?").await;
            assert_eq!(shown(page).await, talk(&[("ada", "psst"), ("bob", "yes?")]));
        }
        cy.call(json!({"type": "ping"})).await;
        let is_direct =
            |message: &Value| message["type"] == "message" && message["room"] != "lobby";
        assert!(!cy.received().any(is_direct));
    });
}

#[test]
fn direct_message_waits_for_an_absent_user_and_is_unread() {
    browse(async {
        let cluster = Cluster::start().await;
        let mut browser = Browser::start();
        let ada = person(&mut browser, &cluster, 0, "ada").await;
        // Through nginx: one address for both nodes.
        let his = format!("http://{}/?name=bob#lobby", cluster.nginx.address);
        let bob = browser.page(&his).await;
        is_open(&bob).await;
        write_to(&ada, "bob").await;
        send_message(&ada, "one").await;
        directs(&bob, &["ada 1"]).await;
        bob.click("#directs button").await;
        shows(&bob, "ada", "one").await;
        bob.click("#rooms button").await;
        leave_page(&bob).await;
        for text in ["two", "three"] {
            send_message(&ada, text).await;
            shows(&ada, "ada", text).await;
        }
        bob.goto(&his).await;
        directs(&bob, &["ada 2"]).await;
        bob.click("#directs button").await;
        let whole = talk(&[("ada", "one"), ("ada", "two"), ("ada", "three")]);
        shows(&bob, "ada", "three").await;
        assert_eq!(shown(&bob).await, whole);
        // Read messages stay read.
        bob.reload().await;
        directs(&bob, &["ada"]).await;
        bob.click("#directs button").await;
        shows(&bob, "ada", "three").await;
        assert_eq!(shown(&bob).await, whole);
    });
}
