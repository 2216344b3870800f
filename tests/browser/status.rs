//! The status page: the state of a cluster, and what the page does without the right to read it.

use serde_json::{Value, json};

use super::chat::BEYOND;
use super::is_open;
use crate::support::browser::{Browser, PHONE, Page, browse};
use crate::support::process::NodeProcess;
use crate::support::{Cluster, Issuer};

/// The row of a node: its `data-state`, and all its text.
const ROW: &str = "
    const rows = [...document.querySelectorAll('#lines tr')];
    const found = rows.filter((row) => row.querySelector('th b').textContent === arguments[0]);
    const row = found.length === 1 && found[0];
";

/// Waits until the only row of a node is in a state, and returns its text.
async fn row(page: &Page, node: &str, state: &str) -> String {
    let script = format!("{ROW} return row && row.dataset.state === arguments[1] && row.innerText");
    let wanted = vec![json!(node), json!(state)];
    let text = page
        .until(&format!("{node} is {state}"), &script, wanted)
        .await;
    text.as_str().expect("text").to_owned()
}

/// Waits until a cell of a node's row fits the regular expression.
async fn cell(page: &Page, node: &str, title: &str, fits: &str) {
    let script = format!(
        "{ROW} const cell = row && row.querySelector(`[data-title='${{arguments[1]}}'] .value`);
         return cell && new RegExp(arguments[2]).test(cell.textContent)"
    );
    let wanted = vec![json!(node), json!(title), json!(fits)];
    page.until(&format!("{title} of {node} is {fits}"), &script, wanted)
        .await;
}

async fn complaints(page: &Page) -> Vec<Value> {
    let mut console = page.console().await;
    // The browser itself logs a lost or refused connection; that is no error of the page.
    console.retain(|entry| {
        let text = entry["message"].as_str().unwrap_or_default();
        entry["level"] != "INFO" && !text.contains("WebSocket connection to")
    });
    console
}

#[test]
fn status_page_shows_every_node_its_crash_and_its_restart() {
    browse(async {
        let mut cluster = Cluster::start().await;
        let mut browser = Browser::start();
        let url = format!("http://{}/status.html", cluster.nginx.address);
        let page = browser.page(&url).await;
        let own = cluster.index(&is_open(&page).await);
        let names = ["n1", "n2"];
        let (own_name, other) = (names[own], 1 - own);
        for name in names {
            let text = row(&page, name, "ready").await;
            assert!(
                text.contains("Ready") && text.contains(env!("CARGO_PKG_VERSION")),
                "{text}"
            );
            cell(&page, name, "Redis", "ms$").await;
            cell(&page, name, "Memory", "^[1-9].*MiB$").await;
        }
        // The page is the only client: the HTTP connections of nginx and the browser are none.
        cell(&page, own_name, "Clients", "^1$").await;
        cell(&page, names[other], "Clients", "^0$").await;
        cell(&page, own_name, "Out per second", "^[1-9]").await;
        cell(&page, own_name, "Delivery p99", "ms$").await;
        page.until("all is summed up", TOTAL, vec![json!("2 of 2")])
            .await;
        let drawn = format!("{ROW} return row.querySelectorAll('path[d*=L]').length === 4");
        let name = vec![json!(own_name)];
        page.until("its plots are drawn", &drawn, name).await;

        // Another node is killed, and restarts with a new incarnation.
        cluster.nodes[other].kill();
        let text = row(&page, names[other], "gone").await;
        assert!(
            text.contains("Gone") && text.contains("last seen"),
            "{text}"
        );
        cell(&page, names[other], "Clients", "^–$").await;
        page.until("all is summed up", TOTAL, vec![json!("1 of 2")])
            .await;
        page.until(
            "the node is reported gone",
            NEWS,
            vec![json!(format!("{} is gone.", names[other]))],
        )
        .await;
        cluster.nodes[other].exit().await;
        cluster.revive(other).await;
        let script = format!(
            "{ROW} return row && row.dataset.state === 'ready' \
             && row.innerText.includes('restarted')"
        );
        page.until("it is back", &script, vec![json!(names[other])])
            .await;
        page.until("all is summed up", TOTAL, vec![json!("2 of 2")])
            .await;

        // The page's own node is killed: the page reconnects, and shows no other node as gone.
        cluster.nodes[own].kill();
        row(&page, own_name, "gone").await;
        row(&page, names[other], "ready").await;
        assert_eq!(is_open(&page).await, names[other]);
        let complaints = complaints(&page).await;
        assert!(complaints.is_empty(), "{complaints:#?}");
    });
}

const TOTAL: &str = "return document.getElementById('total-nodes').textContent === arguments[0]";
const NEWS: &str = "return document.getElementById('news').textContent.includes(arguments[0])";
const DOOR: &str = "return !document.getElementById('door').hidden \
                    && document.getElementById('refusal').textContent";

#[test]
fn page_without_rights_shows_instructions_and_sends_no_fragment_token() {
    browse(async {
        let issuer = Issuer::new();
        let path = issuer.path();
        let arguments = [
            "--token-secret-file",
            &path,
            "--node",
            "n1",
            "--log-level",
            "trace",
        ];
        let node = NodeProcess::start(&arguments).await;
        let mut browser = Browser::start();
        let url = format!("http://{}/status.html", node.address);
        let page = browser.page(&url).await;
        let refusal = page.until("the door is shown", DOOR, vec![]).await;
        assert!(
            refusal
                .as_str()
                .is_some_and(|refusal| refusal.contains("sign in")),
            "{refusal}"
        );

        // A token for every ordinary room, which does not include `$nodes`.
        let everything = issuer.token("ada", &["*"]);
        page.fill("#token", &format!("{everything}\u{e007}")).await;
        let refused =
            "return document.getElementById('refusal').textContent.includes('your token')";
        page.until("it is refused", refused, vec![]).await;
        page.fill("#token", "no-token-at-all\u{e007}").await;
        let refused = "return document.getElementById('refusal').textContent.includes('token') && \
                       !document.getElementById('refusal').textContent.includes('your token')";
        page.until("it is refused", refused, vec![]).await;

        let token = issuer.token("ops", &["$nodes"]);
        page.goto(&format!("{url}#token={token}")).await;
        row(&page, "n1", "ready").await;
        let address = page.script("return location.href", vec![]).await;
        assert_eq!(address, json!(url), "it is taken out of the address");
        let hidden = page
            .script("return document.getElementById('door').hidden", vec![])
            .await;
        assert_eq!(hidden, json!(true));
        // After a reload the page does not ask again.
        page.goto("about:blank").await;
        page.goto(&url).await;
        row(&page, "n1", "ready").await;
        let secret = token.rsplit('.').next().expect("a signature");
        let leaked: Vec<String> = node
            .log()
            .into_iter()
            .filter(|line| line.contains(secret))
            .collect();
        assert!(leaked.is_empty(), "{leaked:?}");
        let complaints = complaints(&page).await;
        assert!(complaints.is_empty(), "{complaints:#?}");
    });
}

#[test]
fn status_page_fits_a_small_phone_as_a_table() {
    browse(async {
        let cluster = Cluster::start().await;
        let mut browser = Browser::start();
        let url = format!("http://{}/status.html", cluster.nginx.address);
        let page = browser.phone(&url).await;
        for name in ["n1", "n2"] {
            row(&page, name, "ready").await;
        }
        assert_eq!(page.script(BEYOND, vec![]).await, json!([]));
        let picture = page.picture().await;
        let width = u32::from_be_bytes(picture[16..20].try_into().expect("PNG"));
        assert_eq!(width % PHONE.0, 0, "the window has the phone's width");
        let roles = "const role = (element) => element.getAttribute('role');
                     return [...document.querySelectorAll('tbody tr')].every((row) => \
                     role(row) === 'row' \
                     && row.children.length === document.querySelectorAll('thead th').length \
                     && [...row.children].every((cell) => /^(cell|rowheader)$/.test(role(cell))))";
        assert_eq!(page.script(roles, vec![]).await, json!(true));
    });
}
