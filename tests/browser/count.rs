//! The client module in a real browser, counting: what was acknowledged is seen once and in order through the death of a
//! node and of Redis, or a gap is told.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::support::Cluster;
use crate::support::browser::{Browser, Page, browse};
use crate::support::redis_server::{Options, RedisServer};

/// Joins the room `count` and publishes 1, 2, 3 … one after the other, until `counter.ending` is set.
const COUNT: &str = "
    const [user, publishes, done] = arguments;
    import('/switchboard.js').then(({ Switchboard }) => {
        const counter = { seen: [], gaps: [], acknowledged: 0, refused: [], nodes: [], ending: false, ended: false };
        window.counter = counter;
        const board = new Switchboard(undefined, { user });
        board.on('state', ({ state, node }) => state === 'open' && counter.nodes.push(node));
        const room = board.join('count', {
            onMessage: ({ data }) => counter.seen.push(data),
            onGap: () => counter.gaps.push(counter.seen.length),
            onState: ({ state }) => state === 'joined' && done(),
        });
        counter.run = async () => {
            for (let n = 1; !counter.ending; n++) {
                await room.publish(n).catch((error) => counter.refused.push([n, error.code]));
                counter.acknowledged = n;
                await new Promise((next) => setTimeout(next, 5));
            }
            counter.ended = true;
        };
        if (publishes) counter.run();
    });
";

#[derive(Debug, Deserialize)]
struct Counter {
    seen: Vec<u64>,
    /// How many were seen when a gap was told.
    gaps: Vec<usize>,
    acknowledged: u64,
    refused: Vec<Value>,
    nodes: Vec<String>,
}

async fn count(page: &Page, user: &str, publishes: bool) {
    page.script_async(COUNT, vec![json!(user), json!(publishes)])
        .await;
}

async fn counter(page: &Page) -> Counter {
    let counter = page.script("return window.counter", vec![]).await;
    serde_json::from_value(counter).expect("a counter")
}

/// Waits until `more` numbers have been acknowledged.
async fn goes_on(page: &Page, more: u64) {
    let wanted = counter(page).await.acknowledged + more;
    let script = "return counter.acknowledged >= arguments[0]";
    page.until("the count goes on", script, vec![json!(wanted)])
        .await;
}

/// Ends the count; what the publisher and the listener have to say.
async fn end(publisher: &Page, listener: &Page) -> [Counter; 2] {
    publisher.script("counter.ending = true", vec![]).await;
    publisher
        .until("the last is answered", "return counter.ended", vec![])
        .await;
    let last = counter(publisher).await.acknowledged;
    for page in [publisher, listener] {
        let script = "return counter.seen.at(-1) === arguments[0]";
        page.until("the last is seen", script, vec![json!(last)])
            .await;
    }
    [counter(publisher).await, counter(listener).await]
}

#[test]
fn what_was_acknowledged_is_seen_once_and_in_order_through_a_killed_node_and_a_restarted_redis() {
    browse(async {
        let keeps = Options::default().arg("--appendonly yes --appendfsync always");
        let mut cluster = Cluster::on(RedisServer::with(keeps)).await;
        let mut browser = Browser::start();
        let url = format!("http://{}/healthz", cluster.nginx.address);
        let (publisher, listener) = (browser.page(&url).await, browser.page(&url).await);
        count(&listener, "bob", false).await;
        count(&publisher, "ada", true).await;
        goes_on(&publisher, 50).await;

        let killed = cluster.index(&counter(&publisher).await.nodes[0]);
        cluster.nodes[killed].kill();
        goes_on(&publisher, 50).await;
        cluster.nodes[killed].exit().await;
        cluster.revive(killed).await;
        cluster.redis.restart();
        goes_on(&publisher, 50).await;

        let counters = end(&publisher, &listener).await;
        assert!(counters[0].nodes.len() > 1, "{counters:?}");
        for counter in &counters {
            assert_eq!(counter.refused, [] as [Value; 0]);
            assert_eq!(counter.gaps, [] as [usize; 0], "nothing was lost");
            let all: Vec<u64> = (1..=counters[0].acknowledged).collect();
            assert_eq!(counter.seen, all);
        }
    });
}

#[test]
fn a_redis_that_comes_back_empty_is_told_as_a_gap() {
    browse(async {
        let mut cluster = Cluster::start().await;
        let mut browser = Browser::start();
        let url = format!("http://{}/healthz", cluster.nginx.address);
        let (publisher, listener) = (browser.page(&url).await, browser.page(&url).await);
        count(&listener, "bob", false).await;
        count(&publisher, "ada", true).await;
        goes_on(&publisher, 50).await;
        cluster.redis.restart();
        goes_on(&publisher, 50).await;

        let counters = end(&publisher, &listener).await;
        for Counter {
            seen,
            gaps,
            refused,
            ..
        } in &counters
        {
            assert_eq!(*refused, [] as [Value; 0]);
            assert_eq!(gaps.len(), 1, "told once: {counters:?}");
            // A number whose answer was lost with Redis is published anew and may be seen again.
            let (before, after) = seen.split_at(gaps[0]);
            for part in [before, after] {
                assert!(
                    part.windows(2).all(|pair| pair[1] == pair[0] + 1),
                    "{counters:?}"
                );
            }
            assert_eq!(before.first(), Some(&1));
        }
    });
}
