//! The chat page: messages, reconnection, and the layout on a phone.

use serde_json::{Value, json};

use super::{enter, is_open, send_message, shown, shows};
use crate::support::Cluster;
use crate::support::browser::{Browser, PHONE, browse};

#[test]
fn two_pages_on_different_nodes_exchange_messages() {
    browse(async {
        let cluster = Cluster::start().await;
        let mut browser = Browser::start();
        let url = |index: usize| format!("http://{}/", cluster.nodes[index].address);
        let ada = browser.page(&url(0)).await;
        let bob = browser.page(&url(1)).await;
        enter(&ada, "ada", "lobby").await;
        enter(&bob, "bob", "lobby").await;
        assert_eq!(is_open(&ada).await, "n1");
        assert_eq!(is_open(&bob).await, "n2");

        send_message(&ada, "Is anybody there?").await;
        shows(&bob, "ada", "Is anybody there?").await;
        send_message(&bob, "I am, on another node.").await;
        shows(&ada, "bob", "I am, on another node.").await;
        let talk = [
            ("ada".to_owned(), "Is anybody there?".to_owned()),
            ("bob".to_owned(), "I am, on another node.".to_owned()),
        ];
        for page in [&ada, &bob] {
            assert_eq!(shown(page).await, talk);
            let age =
                "return Date.now() - new Date(document.querySelector('.message time').dateTime)";
            let age = page
                .script(age, vec![])
                .await
                .as_i64()
                .expect("milliseconds");
            assert!((0..60_000).contains(&age), "published {age} ms ago");
        }
    });
}

#[test]
fn page_reconnects_after_a_node_is_killed_and_shows_messages_once_in_order() {
    browse(async {
        let cluster = Cluster::start().await;
        let mut browser = Browser::start();
        let url = format!("http://{}/#lobby", cluster.nginx.address);
        let ada = browser.page(&url).await;
        let bob = browser.page(&url).await;
        enter(&ada, "ada", "lobby").await;
        enter(&bob, "bob", "lobby").await;
        let killed = cluster.index(&is_open(&ada).await);
        while cluster.index(&is_open(&bob).await) == killed {
            bob.goto(&url).await;
        }
        send_message(&ada, "before").await;
        shows(&bob, "ada", "before").await;

        // A third client publishes on the other node, from before the kill until the page is back.
        let mut writer = cluster.nodes[1 - killed].client().await;
        writer.auth("cy").await;
        let mut sent = 0;
        let mut returned = false;
        while !returned || sent < 30 {
            if sent == 5 {
                cluster.nodes[killed].kill();
            }
            sent += 1;
            writer
                .publish("lobby", json!({"text": sent.to_string()}))
                .await;
            if sent > 20 {
                let state = "return document.getElementById('state').dataset.state === 'open' \
                             && document.getElementById('node').textContent";
                returned = ada.script(state, vec![]).await == format!("n{}", 2 - killed);
            }
        }
        send_message(&ada, "I was away").await;
        shows(&bob, "ada", "I was away").await;
        send_message(&bob, "All is well").await;
        shows(&ada, "bob", "All is well").await;

        let mut talk = vec![("ada".to_owned(), "before".to_owned())];
        talk.extend((1..=sent).map(|n| ("cy".to_owned(), n.to_string())));
        talk.push(("ada".to_owned(), "I was away".to_owned()));
        talk.push(("bob".to_owned(), "All is well".to_owned()));
        for page in [&ada, &bob] {
            assert_eq!(shown(page).await, talk);
        }
    });
}

#[test]
fn chat_page_fits_a_small_phone() {
    browse(async {
        let cluster = Cluster::start().await;
        let mut browser = Browser::start();
        let url = format!("http://{}/", cluster.nginx.address);
        let ada = browser.phone(&url).await;
        let fits = async |what: &str| {
            let at_rest = "return document.getAnimations().length === 0";
            ada.until("nothing moves", at_rest, vec![]).await;
            let beyond = ada.script(BEYOND, vec![]).await;
            assert_eq!(beyond, json!([]), "{what}");
        };
        fits("before joining").await;
        enter(&ada, "ada", "lobby").await;
        send_message(&ada, "hello").await;
        shows(&ada, "ada", "hello").await;
        let mut writer = cluster.client().await;
        writer.auth(&"long-name".repeat(7)).await;
        let long = "x".repeat(10_000);
        writer.publish("lobby", json!({"text": long})).await;
        shows(&ada, &"long-name".repeat(7), &long).await;
        fits("with a long text without blanks").await;
        let picture = ada.picture().await;
        let width = u32::from_be_bytes(picture[16..20].try_into().expect("PNG"));
        assert_eq!(width % PHONE.0, 0, "the window has the phone's width");
        ada.click("#menu").await;
        fits("with the rooms open").await;
        ada.script("document.getElementById('backdrop').click()", vec![])
            .await;
        ada.click("#who-is-here").await;
        fits("with the people open").await;
        ada.click("#people-close").await;
        fits("with all closed again").await;
    });
}

/// What a reader would have to scroll sideways for or would see only a part of, by name.
pub(super) const BEYOND: &str = "
    const page = document.scrollingElement;
    const beyond = [...document.querySelectorAll('body *')].filter((element) => {
        const { left, right, width, height } = element.getBoundingClientRect();
        const seen = width > 1 && height > 1 && getComputedStyle(element).visibility === 'visible';
        return seen && (right > innerWidth + .5 || left < -.5);
    });
    const names = beyond.map((element) => element.id || element.className || element.tagName);
    const title = document.querySelector('h1');
    if (title.clientWidth > 1 && title.scrollWidth > title.clientWidth) names.push('the cut title');
    return page.scrollWidth > innerWidth ? ['the page', ...names] : names;
";

#[test]
fn page_shows_messages_from_before_it_was_opened() {
    browse(async {
        let cluster = Cluster::start().await;
        let mut writer = cluster.nodes[0].client().await;
        writer.auth("ada").await;
        for n in 1..=60 {
            writer
                .publish("lobby", json!({"text": n.to_string()}))
                .await;
        }
        let mut browser = Browser::start();
        let url = format!("http://{}/?name=bob#lobby", cluster.nodes[1].address);
        let bob = browser.page(&url).await;
        shows(&bob, "ada", "60").await;
        assert_eq!(shown(&bob).await.len(), 50, "one page");
        bob.click(".earlier").await;
        shows(&bob, "ada", "1").await;
        let order: Vec<Value> = shown(&bob)
            .await
            .into_iter()
            .map(|(_, text)| json!(text))
            .collect();
        assert_eq!(
            order,
            (1..=60).map(|n| json!(n.to_string())).collect::<Vec<_>>()
        );
    });
}
