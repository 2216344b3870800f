//! Who is here, who is typing, and direct messages, as people see them in pages on two nodes.

use serde_json::{Value, json};

use super::{enter, is_open, say, shown, shows};
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

/// Waits until the list of people is this, by name, with what is said of each: `bob 2 devices`.
async fn here(page: &Page, people: &[&str]) {
    page.until(&format!("{people:?} are here"), HERE, vec![json!(people)])
        .await;
}

/// The room is chosen anew, which asks anew for what is not pushed: the devices.
const HERE: &str = "
    document.querySelector('#rooms button').click();
    const rows = [...document.querySelectorAll('#people-list .label')];
    const said = rows.map((row) => [...row.querySelectorAll('.name, .details')].map((part) => part.textContent).join(' '));
    return JSON.stringify(said) === JSON.stringify(arguments[0]);
";

/// The lines of who came and went.
async fn comings(page: &Page) -> Value {
    let script =
        "return [...document.querySelectorAll('.comings')].map((line) => line.textContent)";
    page.script(script, vec![]).await
}

async fn told(page: &Page, line: &str) {
    let script = "return [...document.querySelectorAll('.comings')].some((line) => line.textContent === arguments[0])";
    page.until(line, script, vec![json!(line)]).await;
}

async fn leave_page(page: &Page) {
    page.goto("about:blank").await;
}

/// Somebody else in the lobby, without a page.
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
        let desk = person(&mut browser, &cluster, 1, "bob").await;
        here(&ada, &["ada", "bob"]).await;
        here(&desk, &["bob", "ada"]).await;
        told(&ada, "bob joined").await;
        let phone = person(&mut browser, &cluster, 0, "bob").await;
        here(&ada, &["ada", "bob 2 devices"]).await;
        let mut nobody = cluster.nodes[1].client().await;
        nobody.join("lobby").await;
        let nameless = "document.querySelector('#rooms button').click();
                        return document.getElementById('people-rest').textContent === 'and 1 without a name'";
        ada.until("a number of the others", nameless, vec![]).await;

        leave_page(&desk).await;
        here(&ada, &["ada", "bob"]).await;
        say(&phone, "Still here").await;
        shows(&ada, "bob", "Still here").await;
        assert_eq!(comings(&ada).await, json!(["bob joined"]));
        leave_page(&phone).await;
        told(&ada, "bob left").await;
        here(&ada, &["ada"]).await;
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
        here(&ada, &["ada", "bob", "cy"]).await;
        say(&ada, "hello").await;
        for page in [&ada, &bob] {
            shows(page, "ada", "hello").await;
        }
        for _ in 0..2 {
            bob.reload().await;
            is_open(&bob).await;
        }
        // Whoever leaves after that is told after it, too.
        drop(cy);
        told(&ada, "cy left").await;
        let lines = comings(&ada).await;
        assert_eq!(
            lines.as_array().and_then(|lines| lines.last()),
            Some(&json!("cy left"))
        );
        assert!(!lines.to_string().contains("bob left"), "{lines}");
        here(&ada, &["ada", "bob"]).await;
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
        here(&ada, &["ada", "bob"]).await;
        here(&bob, &["bob", "ada"]).await;
        let _cy = other(&cluster, 0, "cy").await;
        let _dot = other(&cluster, 1, "dot").await;
        here(&ada, &["ada", "bob", "cy", "dot"]).await;
        cluster.nodes[1].kill();
        here(&ada, &["ada", "bob", "cy"]).await;
        here(&bob, &["bob", "ada", "cy"]).await;
        cluster.redis.restart();
        let _fay = other(&cluster, 0, "fay").await;
        here(&ada, &["ada", "bob", "cy", "fay"]).await;
        here(&bob, &["bob", "ada", "cy", "fay"]).await;
    });
}

async fn typing(page: &Page, words: &str) {
    let script = "return document.getElementById('typing').textContent === arguments[0]";
    page.until(words, script, vec![json!(words)]).await;
}

/// Says that one is typing, or no longer is.
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
        here(&bob, &["bob", "ada 2 devices", "cy"]).await;
        // Her own other device is no news to her.
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
        // Whoever vanishes in the middle of a word does not type for ever.
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

/// Opens the conversation with a person who is here.
async fn write_to(page: &Page, user: &str) {
    let script = "const name = (row) => row.querySelector('.name').textContent;
                  const row = [...document.querySelectorAll('button.person')].find((row) => name(row) === arguments[0]);
                  row?.click();
                  return row !== undefined";
    page.until(user, script, vec![json!(user)]).await;
}

/// The conversations with persons, with how much is unread: `bob 1`.
async fn directs(page: &Page, talks: &[&str]) {
    let script = "const tabs = [...document.querySelectorAll('#directs button')];
                  const said = tabs.map((tab) => [...tab.querySelectorAll('.label, .unread')].map((part) => part.firstChild.textContent).join(' '));
                  return JSON.stringify(said) === JSON.stringify(arguments[0])";
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
        let desk = person(&mut browser, &cluster, 0, "ada").await;
        let phone = person(&mut browser, &cluster, 1, "ada").await;
        let bob = person(&mut browser, &cluster, 1, "bob").await;
        let mut cy = other(&cluster, 0, "cy").await;
        write_to(&desk, "bob").await;
        bob.fill("#message", "not to be sent").await;
        say(&desk, "psst").await;
        shows(&desk, "ada", "psst").await;
        directs(&bob, &["ada 1"]).await;
        // What one said oneself is not unread on the other device.
        directs(&phone, &["bob"]).await;

        bob.click("#directs button").await;
        shows(&bob, "ada", "psst").await;
        directs(&bob, &["ada"]).await;
        bob.fill("#message", "y").await;
        typing(&desk, "bob is typing…").await;
        bob.fill("#message", "yes?\u{e007}").await;
        shows(&desk, "bob", "yes?").await;
        phone.click("#directs button").await;
        for page in [&desk, &phone, &bob] {
            shows(page, "bob", "yes?").await;
            assert_eq!(shown(page).await, talk(&[("ada", "psst"), ("bob", "yes?")]));
        }
        cy.call(json!({"type": "ping"})).await;
        let foreign = |said: &Value| said["type"] == "message" && said["room"] != "lobby";
        assert!(!cy.heard().any(foreign));
    });
}

#[test]
fn direct_message_waits_for_an_absent_user_and_is_unread() {
    browse(async {
        let cluster = Cluster::start().await;
        let mut browser = Browser::start();
        let ada = person(&mut browser, &cluster, 0, "ada").await;
        // By the balancer: one address, whichever node it is.
        let his = format!("http://{}/?name=bob#lobby", cluster.nginx.address);
        let bob = browser.page(&his).await;
        is_open(&bob).await;
        write_to(&ada, "bob").await;
        say(&ada, "one").await;
        directs(&bob, &["ada 1"]).await;
        bob.click("#directs button").await;
        shows(&bob, "ada", "one").await;
        bob.click("#rooms button").await;
        leave_page(&bob).await;
        for text in ["two", "three"] {
            say(&ada, text).await;
            shows(&ada, "ada", text).await;
        }
        bob.goto(&his).await;
        directs(&bob, &["ada 2"]).await;
        bob.click("#directs button").await;
        let whole = talk(&[("ada", "one"), ("ada", "two"), ("ada", "three")]);
        shows(&bob, "ada", "three").await;
        assert_eq!(shown(&bob).await, whole);
        // What was read stays read.
        bob.reload().await;
        directs(&bob, &["ada"]).await;
        bob.click("#directs button").await;
        shows(&bob, "ada", "three").await;
        assert_eq!(shown(&bob).await, whole);
    });
}
