//! Real browsers: headless Chromium, controlled over WebDriver. The driver leads a process group
//! with its browsers, so that all of them end with it, however a test ends.

use std::io::{BufRead, BufReader, Lines};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use async_tungstenite::tungstenite::http::Method;
use fantoccini::elements::Element;
use fantoccini::wd::{Capabilities, WebDriverCompatibleCommand};
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};
use switchboard::runtime;
use tempfile::TempDir;
use url::{ParseError, Url};

use super::{DEADLINE, GLANCE, within};

const MISSING: &str =
    "the tests of the page need Chromium and its driver: `make test` installs them";

/// Options of Chromium without background requests to its vendor.
const FLAGS: &[&str] = &[
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
];

/// A small phone.
pub const PHONE: (u32, u32) = (360, 740);

/// Runs a test's future where the WebDriver client finds the runtime it needs.
pub fn browse(test: impl Future<Output = ()>) {
    let tokio = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let limit = Duration::from_secs(180);
    let finished = tokio.block_on(runtime::timeout(limit, Box::pin(test)));
    assert!(finished.is_ok(), "the test did not end within {limit:?}");
}

/// A driver of browsers.
pub struct Browser {
    driver: Child,
    /// Held open, because the driver may still write to it.
    _output: Lines<BufReader<ChildStdout>>,
    address: String,
    /// All that the browsers write.
    dir: Option<TempDir>,
    opened: u32,
}

/// Starts a driver. `None` if it exits at once.
fn start_driver(dir: &Path) -> Option<(Child, Lines<BufReader<ChildStdout>>, String)> {
    let mut driver = Command::new("chromedriver")
        .arg("--port=0")
        .env("TMPDIR", dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .expect(MISSING);
    let stdout = driver.stdout.take().expect("it is piped");
    let mut output = BufReader::new(stdout).lines();
    let port = output
        .by_ref()
        .map_while(Result::ok)
        .find_map(|line| Some(line.split_once("successfully on port ")?.1.to_owned()));
    match port {
        Some(port) => Some((driver, output, port)),
        None => {
            driver.wait().expect("it is ours");
            None
        }
    }
}

impl Browser {
    pub fn start() -> Self {
        let dir = tempfile::tempdir().expect("a directory for browsers");
        // It chooses a port for two addresses, and exits if another process has taken one of them.
        let (driver, output, port) = std::iter::repeat_with(|| start_driver(dir.path()))
            .take(5)
            .find_map(|started| started)
            .expect("the driver prints its port");
        Self {
            driver,
            _output: output,
            address: format!("http://127.0.0.1:{}", port.trim_end_matches('.')),
            dir: Some(dir),
            opened: 0,
        }
    }

    /// A browser of its own with this page open.
    pub async fn page(&mut self, url: &str) -> Page {
        self.open(url, json!({})).await
    }

    /// The same in a phone's window.
    pub async fn phone(&mut self, url: &str) -> Page {
        let (width, height) = PHONE;
        let metrics = json!({"width": width, "height": height, "pixelRatio": 2, "touch": true});
        let emulation = json!({"deviceMetrics": metrics});
        self.open(url, json!({"mobileEmulation": emulation})).await
    }

    async fn open(&mut self, url: &str, mut options: Value) -> Page {
        self.opened += 1;
        let dir = self.dir.as_ref().expect("it runs").path();
        let profile = dir.join(format!("profile-{}", self.opened));
        let mut flags: Vec<String> = FLAGS.iter().map(ToString::to_string).collect();
        flags.push(format!("--user-data-dir={}", profile.display()));
        flags.push("--window-size=1100,760".into());
        options["args"] = json!(flags);
        let wanted = json!({
            "browserName": "chrome",
            "goog:chromeOptions": options,
            "goog:loggingPrefs": {"browser": "ALL"},
        });
        let wanted: Capabilities = serde_json::from_value(wanted).expect("an object");
        let connecting = async {
            ClientBuilder::new(HttpConnector::new())
                .capabilities(wanted)
                .connect(&self.address)
                .await
        };
        let client = within("a browser starts", connecting).await.expect(MISSING);
        let page = Page { client };
        page.goto(url).await;
        page
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let group = Pid::from_child(&self.driver);
        let _ = kill_process_group(group, Signal::KILL);
        let _ = self.driver.wait();
        // The browsers may still be about to die, and write.
        let Some(dir) = self.dir.take() else { return };
        let dir = dir.keep();
        for _ in 0..200 {
            if std::fs::remove_dir_all(&dir).is_ok() {
                return;
            }
            std::thread::sleep(GLANCE);
        }
    }
}

/// One browser window.
pub struct Page {
    client: Client,
}

impl Page {
    pub async fn goto(&self, url: &str) {
        within("the page loads", self.client.goto(url))
            .await
            .unwrap_or_else(|error| panic!("{url}: {error}"));
    }

    pub async fn reload(&self) {
        let loading = within("the page loads again", self.client.refresh());
        loading.await.expect("the page is there");
    }

    pub async fn find(&self, selector: &str) -> Element {
        let finding = self.client.find(Locator::Css(selector));
        within("the browser answers", finding)
            .await
            .unwrap_or_else(|error| panic!("{selector}: {error}"))
    }

    /// Types into a field, in place of what it held.
    pub async fn fill(&self, selector: &str, text: &str) {
        let field = self.find(selector).await;
        field.clear().await.expect("it can be cleared");
        field.send_keys(text).await.expect("it takes keys");
    }

    pub async fn click(&self, selector: &str) {
        let element = self.find(selector).await;
        let clicked = element.click().await;
        clicked.unwrap_or_else(|error| panic!("{selector}: {error}"));
    }

    /// What a script returns; `arguments` holds the given values.
    pub async fn script(&self, script: &str, arguments: Vec<Value>) -> Value {
        within("the script ends", self.client.execute(script, arguments))
            .await
            .unwrap_or_else(|error| panic!("{error}: {script}"))
    }

    /// What a script hands to its last argument, a function.
    pub async fn script_async(&self, script: &str, arguments: Vec<Value>) -> Value {
        let running = self.client.execute_async(script, arguments);
        within("the script ends", running)
            .await
            .unwrap_or_else(|error| panic!("{error}: {script}"))
    }

    /// Runs a script until it returns something true; that.
    pub async fn until(&self, what: &str, script: &str, arguments: Vec<Value>) -> Value {
        let looking = async {
            loop {
                let found = self.script(script, arguments.clone()).await;
                if !matches!(found, Value::Null | Value::Bool(false)) {
                    return found;
                }
                runtime::sleep(10 * GLANCE).await;
            }
        };
        match runtime::timeout(DEADLINE, looking).await {
            Ok(found) => found,
            Err(_) => panic!(
                "not within {DEADLINE:?}: {what}; the page shows {}",
                self.text().await
            ),
        }
    }

    async fn text(&self) -> Value {
        self.script("return document.body.innerText", vec![]).await
    }

    /// What the page's console has shown since the last look, as objects with `level` and
    /// `message`.
    pub async fn console(&self) -> Vec<Value> {
        let entries = within("the browser answers", self.client.issue_cmd(ConsoleLog)).await;
        let entries = entries.expect("the driver keeps the console");
        entries.as_array().expect("a list").clone()
    }

    /// A picture of the window, as PNG.
    pub async fn picture(&self) -> Vec<u8> {
        let taking = self.client.screenshot();
        within("the picture is taken", taking)
            .await
            .expect("a picture")
    }
}

/// The driver's own command for what the console has shown; WebDriver has none.
#[derive(Debug)]
struct ConsoleLog;

impl WebDriverCompatibleCommand for ConsoleLog {
    fn endpoint(&self, base: &Url, session: Option<&str>) -> Result<Url, ParseError> {
        base.join(&format!("session/{}/se/log", session.unwrap_or_default()))
    }

    fn method_and_body(&self, _: &Url) -> (Method, Option<String>) {
        (Method::POST, Some(json!({"type": "browser"}).to_string()))
    }
}
