//! The client module in a real browser: acknowledged numbers arrive once and in order while a node
//! is killed and Redis restarts, or a gap is reported.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::support::Cluster;
use crate::support::browser::{Browser, Page, browse};
use crate::support::redis_server::{Options, RedisServer};

/// Joins the room `count` and publishes 1, 2, 3 … one after the other, until `counter.ending` is
/// set.
const COUNT: &str = "
    const [user, publishes, done] = arguments;
    import('/switchboard.js').then(({ Switchboard }) => {
        const counter = {
            seen: [], gaps: [], acknowledged: 0, refused: [], nodes: [],
            begun: false, ending: false, ended: false,
        };
        window.counter = counter;
        const board = new Switchboard(undefined, { user });
        board.on('state', ({ state, node }) => state === 'open' && counter.nodes.push(node));
        const room = board.join('count', {
            onMessage: ({ data }) => counter.seen.push(data),
            onGap: () => counter.gaps.push(counter.seen.length),
            onState: ({ state }) => state === 'joined' && begin(),
        });
        const begin = () => {
            done();
            if (publishes && !counter.begun) run();
        };
        const run = async () => {
            counter.begun = true;
            for (let n = 1; !counter.ending; n++) {
                await room.publish(n).catch((error) => counter.refused.push([n, error.code]));
                counter.acknowledged = n;
                await new Promise((next) => setTimeout(next, 5));
            }
            counter.ended = true;
        };
    });
";

#[derive(Debug, Deserialize)]
struct Counter {
    seen: Vec<u64>,
    /// How many numbers had arrived when a gap was reported.
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

/// Two pages that have begun to count; the first publishes.
async fn begin(cluster: &Cluster, browser: &mut Browser) -> [Page; 2] {
    // Any document of the nodes is sufficient.
    let url = format!("http://{}/healthz", cluster.nginx.address);
    let (publisher, listener) = (browser.page(&url).await, browser.page(&url).await);
    count(&listener, "bob", false).await;
    count(&publisher, "ada", true).await;
    goes_on(&publisher, 50).await;
    [publisher, listener]
}

/// Waits until `more` numbers have been acknowledged.
async fn goes_on(page: &Page, more: u64) {
    let wanted = counter(page).await.acknowledged + more;
    let script = "return counter.acknowledged >= arguments[0]";
    page.until("the count goes on", script, vec![json!(wanted)])
        .await;
}

/// Ends the count and returns the results of the publisher and the subscriber.
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

/// Checks a counter: all numbers in order and once, except where a gap was reported. There some may
/// be missing, and one whose reply was lost with Redis may arrive again.
fn judge(counter: &Counter) {
    assert_eq!(counter.refused, [] as [Value; 0], "{counter:?}");
    assert_eq!(counter.seen.first(), Some(&1), "{counter:?}");
    let mut from = 0;
    for end in counter.gaps.iter().copied().chain([counter.seen.len()]) {
        let part = &counter.seen[from..end];
        let in_order = part.windows(2).all(|pair| pair[1] == pair[0] + 1);
        assert!(in_order, "{counter:?}");
        from = end;
    }
}

#[test]
fn acknowledged_numbers_arrive_once_in_order_through_a_killed_node() {
    browse(async {
        let mut cluster = Cluster::start().await;
        let mut browser = Browser::start();
        let [publisher, listener] = begin(&cluster, &mut browser).await;
        let killed = cluster.index(&counter(&publisher).await.nodes[0]);
        cluster.nodes[killed].kill();
        goes_on(&publisher, 50).await;
        cluster.nodes[killed].exit().await;
        cluster.revive(killed).await;
        cluster.nodes[1 - killed].kill();
        goes_on(&publisher, 50).await;

        let counters = end(&publisher, &listener).await;
        assert!(counters[0].nodes.len() > 1, "{counters:?}");
        for counter in &counters {
            judge(counter);
            assert_eq!(counter.gaps, [] as [usize; 0], "nothing was lost");
            assert_eq!(counter.seen.len() as u64, counters[0].acknowledged);
        }
    });
}

#[test]
fn redis_restart_with_or_without_data_is_reported_as_a_gap() {
    browse(async {
        let keeps = Options::default().arg("--appendonly yes --appendfsync always");
        for options in [keeps, Options::default()] {
            let mut cluster = Cluster::on(RedisServer::with(options)).await;
            let mut browser = Browser::start();
            let [publisher, listener] = begin(&cluster, &mut browser).await;
            cluster.redis.restart();
            goes_on(&publisher, 50).await;
            for counter in end(&publisher, &listener).await {
                judge(&counter);
                assert_eq!(counter.gaps.len(), 1, "reported once: {counter:?}");
            }
        }
    });
}
