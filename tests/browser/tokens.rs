//! Signing in to the page with a token, on a node that requires one.

use serde_json::json;

use super::{is_open, send_message, shows};
use crate::support::browser::{Browser, Page, browse};
use crate::support::{Issuer, NodeProcess};

async fn signed_in(page: &Page, user: &str) {
    let script = "const who = document.getElementById('who');
                  return !document.getElementById('signed-in').hidden
                      && who.lastChild.textContent === arguments[0]";
    page.until("signed in", script, vec![json!(user)]).await;
}

/// Waits for the message under the field for the token.
async fn complains(page: &Page, words: &str) {
    let script = "return document.getElementById('token-box').open
                  && document.getElementById('token-error').textContent.includes(arguments[0])";
    page.until(words, script, vec![json!(words)]).await;
}

#[test]
fn token_in_the_address_signs_in_and_is_not_disclosed() {
    browse(async {
        let issuer = Issuer::new();
        let node = NodeProcess::start(&[
            "--token-secret-file",
            &issuer.path(),
            "--log-level",
            "debug",
        ])
        .await;
        let mut browser = Browser::start();
        let token = issuer.token("ada", &["lobby"]);
        let address = format!("http://{}/#lobby&token={token}", node.address);
        let page = browser.page(&address).await;
        is_open(&page).await;
        signed_in(&page, "ada").await;
        send_message(&page, "hello").await;
        shows(&page, "ada", "hello").await;
        let seen = "const entries = performance.getEntries().map(({ name }) => name).slice(1);
                    return [location.href, document.body.innerHTML, entries].join()";
        let seen = page.script(seen, vec![]).await;
        assert!(!seen.to_string().contains(&token), "{seen}");
        assert!(seen.to_string().contains("#lobby"), "{seen}");
        let log = node.log().join("\n");
        assert!(log.contains("session") && !log.contains(&token), "{log}");

        // The tab keeps the token until the user signs out.
        page.reload().await;
        signed_in(&page, "ada").await;
        page.click("#sign-out").await;
        let gone =
            "return document.getElementById('signed-in').hidden && sessionStorage.length === 0";
        page.until("signed out", gone, vec![]).await;
    });
}

#[test]
fn link_with_a_token_replaces_a_user_only_after_a_question() {
    browse(async {
        let issuer = Issuer::new();
        let node = NodeProcess::start(&["--token-secret-file", &issuer.path()]).await;
        let mut browser = Browser::start();
        let link = |user| {
            let token = issuer.token(user, &["lobby"]);
            format!("http://{}/#lobby&token={token}", node.address)
        };
        let page = browser.page(&link("ada")).await;
        signed_in(&page, "ada").await;

        // In the open page.
        let other = link("eve");
        let hash = other.split_once('#').expect("a fragment").1;
        let open = "location.hash = arguments[0]";
        page.script(open, vec![json!(hash)]).await;
        asks(&page, "ada", "eve").await;
        page.click("#replace-keep").await;
        answered(&page).await;
        signed_in(&page, "ada").await;

        // In a page that is loaded anew: it asks, and keeps who is signed in until then.
        let load = "location.href = `/?again#${arguments[0]}`";
        page.script(load, vec![json!(hash)]).await;
        asks(&page, "ada", "eve").await;
        page.reload().await;
        signed_in(&page, "ada").await;
        answered(&page).await;

        page.script(open, vec![json!(hash)]).await;
        asks(&page, "ada", "eve").await;
        page.click("#replace-take").await;
        answered(&page).await;
        signed_in(&page, "eve").await;
    });
}

/// Waits for the question, which names both users.
async fn asks(page: &Page, present: &str, other: &str) {
    let script = "const text = document.getElementById('replace-text').textContent;
                  return document.getElementById('replace').open
                      && text.includes(`as ${arguments[0]}.`) && text.includes(arguments[1])
                      && !location.hash.includes('token')";
    let names = vec![json!(present), json!(other)];
    page.until("the question", script, names).await;
}

async fn answered(page: &Page) {
    let script = "return !document.getElementById('replace').open";
    page.until("no question", script, vec![]).await;
}

#[test]
fn refused_token_is_shown_with_instructions() {
    browse(async {
        let issuer = Issuer::new();
        let node = NodeProcess::start(&[
            "--token-secret-file",
            &issuer.path(),
            "--room",
            "lobby=public",
        ])
        .await;
        let mut browser = Browser::start();
        let address = format!("http://{}/?name=ada#lobby", node.address);
        let page = browser.page(&address).await;
        complains(&page, "lets people in by token").await;
        // Public rooms can still be read and published to, anonymously.
        send_message(&page, "hello").await;
        shows(&page, "anonymous", "hello").await;
        let token = issuer.token("ada", &["lobby"]);
        page.fill("#token", &format!("{}x\u{e007}", &token[..token.len() - 1]))
            .await;
        complains(&page, "Your token was refused").await;
        page.fill("#token", &format!("{token}\u{e007}")).await;
        signed_in(&page, "ada").await;
        send_message(&page, "it is me").await;
        shows(&page, "ada", "it is me").await;
    });
}
