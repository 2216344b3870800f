//! Real browsers on real nodes: the chat page (`chat`), members and direct messages (`people`),
//! security of the page (`safety`), signing in (`tokens`), the status page (`status`), and delivery
//! guarantees of the client module (`count`).

mod chat;
mod count;
mod people;
mod safety;
mod status;
mod tokens;

use serde_json::{Value, json};

use crate::support::browser::Page;

/// Signs in with a name and joins a room, with the fields of the page.
async fn enter(page: &Page, name: &str, room: &str) {
    page.fill("#name", name).await;
    page.fill("#room", room).await;
    page.click("#plug").await;
    is_open(page).await;
    let ready = "return !document.getElementById('message').disabled";
    page.until("the message box is ready", ready, vec![]).await;
}

/// Waits for the connection and returns the node's label.
async fn is_open(page: &Page) -> String {
    let open = "return document.getElementById('state').dataset.state === 'open' \
                && document.getElementById('node').textContent";
    let node = page.until("the page is connected", open, vec![]).await;
    node.as_str().expect("a label").to_owned()
}

/// Writes a message and sends it with Enter.
async fn send_message(page: &Page, text: &str) {
    page.fill("#message", &format!("{text}\u{e007}")).await;
}

/// The messages of the room that the page shows, as sender and text.
async fn shown(page: &Page) -> Vec<(String, String)> {
    let shown = page.script(SHOWN, vec![]).await;
    serde_json::from_value(shown).expect("pairs")
}

/// Waits until the page shows a message.
async fn shows(page: &Page, sender: &str, text: &str) {
    let script = format!(
        "{SHOWN_IS} return shown.some(([by, text]) => by === arguments[0] && text === arguments[1])"
    );
    let wanted: Vec<Value> = vec![json!(sender), json!(text)];
    page.until(&format!("{sender}: {text}"), &script, wanted)
        .await;
}

const SHOWN: &str = "
    return [...document.querySelectorAll('.messages .message')].map((item) =>
        ['.sender', '.text'].map((part) => item.querySelector(part).textContent))";
const SHOWN_IS: &str = "
    const shown = [...document.querySelectorAll('.messages .message')].map((item) =>
        ['.sender', '.text'].map((part) => item.querySelector(part).textContent));";
