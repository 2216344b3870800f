//! A receiver of webhooks: it answers each request as the script demands, and keeps the requests.
//! It checks every signature with the openssl command, independently of our code.

use std::collections::VecDeque;
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::io::{AsyncRead, AsyncWrite};
use futures::{AsyncReadExt, AsyncWriteExt};
use futures_rustls::TlsAcceptor;
use futures_rustls::rustls::ServerConfig;
use futures_rustls::rustls::crypto::aws_lc_rs;
use futures_rustls::rustls::pki_types::pem::PemObject;
use futures_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;
use switchboard::runtime::{self, Listener};
use tempfile::NamedTempFile;

use super::eventually;

/// The secret that the receiver and the nodes share.
pub const SECRET: &str = "3f0c7d1e9b2a4f6880717d5c3e2b1a09";

/// What a receiver does with a request that it has read.
#[derive(Clone, Debug)]
pub enum Answer {
    Status(u16),
    /// Redirects the caller.
    Redirect(String),
    /// 200 after this time.
    Slow(Duration),
    /// No answer.
    Silent,
    /// Closes the connection without an answer.
    Close,
    /// 200 with an endless body.
    Endless,
    /// Bytes that are not HTTP.
    Nonsense,
}

/// A request as it was read, its signature checked.
#[derive(Clone, Debug)]
pub struct WebhookRequest {
    pub head: String,
    pub body: String,
    /// How it was answered.
    pub answer: String,
}

impl WebhookRequest {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect("JSON")
    }

    /// `id type name` of each event.
    pub fn events(&self) -> Vec<String> {
        let body = self.json();
        let events = body["events"].as_array().expect("events").iter();
        let text = |event: &Value, key: &str| event[key].as_str().unwrap_or("?").to_owned();
        let event = |event: &Value| {
            let name = if event.get("user").is_some() {
                "user"
            } else {
                "room"
            };
            let parts = ["id", "type", name].map(|key| text(event, key));
            assert_eq!(
                parts[0].split('-').next(),
                Some(event["time"].to_string().as_str())
            );
            parts.join(" ")
        };
        events.map(event).collect()
    }

    /// The value of a header, by its name in small letters.
    pub fn header(&self, name: &str) -> &str {
        let mut lines = self.head.split("\r\n");
        let found = lines.find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        });
        found.unwrap_or_else(|| panic!("no {name}: {}", self.head))
    }
}

#[derive(Default)]
struct Shared {
    script: VecDeque<Answer>,
    received: Vec<WebhookRequest>,
    /// Requests being answered at this moment, and the most that ever were.
    open: usize,
    most: usize,
}

/// A running receiver. Requests are answered as the script demands, then with 204.
#[derive(Clone)]
pub struct Receiver {
    pub address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
    secret: Arc<NamedTempFile>,
    tls: bool,
}

impl Receiver {
    pub fn start() -> Self {
        Self::at(SocketAddr::from(([127, 0, 0, 1], 0)), None)
    }

    /// With the certificate and key that support code has made for Redis.
    pub fn with_tls(certificates: &Path) -> Self {
        let chain = CertificateDer::pem_file_iter(certificates.join("server.pem"));
        let chain = chain
            .expect("a file")
            .map(|one| one.expect("a certificate"));
        let key = PrivateKeyDer::from_pem_file(certificates.join("server.key")).expect("a key");
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(chain.collect(), key)
            .expect("a certificate of this key");
        let acceptor = TlsAcceptor::from(Arc::new(config));
        Self::at(SocketAddr::from(([127, 0, 0, 1], 0)), Some(acceptor))
    }

    /// At an address, which may have been another receiver's before.
    pub fn at(address: SocketAddr, tls: Option<TlsAcceptor>) -> Self {
        let listener = Listener::bind(address).expect("the address is free");
        let mut secret = NamedTempFile::new().expect("a file");
        writeln!(secret, "{SECRET}").expect("it is written");
        let receiver = Self {
            address: listener.local_addr(),
            shared: Arc::default(),
            secret: Arc::new(secret),
            tls: tls.is_some(),
        };
        let shared = Arc::downgrade(&receiver.shared);
        runtime::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let Some(shared) = shared.upgrade() else {
                    return;
                };
                let tls = tls.clone();
                runtime::spawn(async move {
                    // The caller may close at any time.
                    let _ = match tls {
                        None => serve(socket, &shared).await,
                        Some(tls) => match tls.accept(socket).await {
                            Ok(stream) => serve(stream, &shared).await,
                            Err(_) => None,
                        },
                    };
                });
            }
        });
        receiver
    }

    pub fn url(&self) -> String {
        if self.tls {
            format!("https://localhost:{}/hooks", self.address.port())
        } else {
            format!("http://{}/hooks?token=swordfish", self.address)
        }
    }

    /// The file with the secret.
    pub fn secret(&self) -> &Path {
        self.secret.path()
    }

    /// How the next requests are answered.
    pub fn answers(&self, script: impl IntoIterator<Item = Answer>) {
        self.lock().script.extend(script);
    }

    /// All requests so far.
    pub fn received(&self) -> Vec<WebhookRequest> {
        self.lock().received.clone()
    }

    /// The most requests that were ever open at once.
    pub fn most_at_once(&self) -> usize {
        self.lock().most
    }

    /// The events of the requests that were answered with 2xx.
    pub fn events(&self) -> Vec<String> {
        let received = self.received();
        let taken = received
            .iter()
            .filter(|received| received.answer.contains(" 20"));
        taken.flat_map(WebhookRequest::events).collect()
    }

    /// Waits for this number of requests.
    pub async fn requests(&self, count: usize) -> Vec<WebhookRequest> {
        eventually(&format!("{count} requests"), || {
            self.received().len() >= count
        })
        .await;
        self.received()
    }

    /// Waits until this number of events was accepted.
    pub async fn taken(&self, count: usize) -> Vec<String> {
        eventually(&format!("{count} events"), || self.events().len() >= count).await;
        self.events()
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An open request: until it is answered, or its caller has closed.
struct Open<'a>(&'a Mutex<Shared>);

impl<'a> Open<'a> {
    fn new(shared: &'a Mutex<Shared>) -> Self {
        let mut figures = shared.lock().unwrap_or_else(PoisonError::into_inner);
        figures.open += 1;
        figures.most = figures.most.max(figures.open);
        Self(shared)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).open -= 1;
    }
}

/// Reads a request and answers it.
async fn serve(
    mut socket: impl AsyncRead + AsyncWrite + Unpin,
    shared: &Mutex<Shared>,
) -> Option<()> {
    let lock = || shared.lock().unwrap_or_else(PoisonError::into_inner);
    let (head, body) = read(&mut socket).await?;
    let open = Open::new(shared);
    let answer = lock().script.pop_front();
    let answer = answer.unwrap_or(Answer::Status(204));
    let line = match &answer {
        Answer::Status(code) => format!("HTTP/1.1 {code} Scripted"),
        Answer::Redirect(place) => format!("HTTP/1.1 302 Found\r\nLocation: {place}"),
        Answer::Slow(_) | Answer::Endless => "HTTP/1.1 200 OK".to_owned(),
        Answer::Nonsense => "what do you want".to_owned(),
        Answer::Silent | Answer::Close => String::new(),
    };
    let received = WebhookRequest {
        head,
        body,
        answer: line.clone(),
    };
    check(&received);
    if let Answer::Slow(time) = answer {
        runtime::sleep(time).await;
    }
    lock().received.push(received);
    // Once it is answered the caller may begin another.
    let _open = matches!(answer, Answer::Silent).then_some(open);
    match answer {
        Answer::Close => return None,
        Answer::Silent => {
            // Until the caller gives up.
            let _ = socket.read(&mut [0]).await;
            return None;
        }
        Answer::Endless => {
            socket
                .write_all(format!("{line}\r\n\r\n").as_bytes())
                .await
                .ok()?;
            while socket.write_all(&[b'x'; 4096]).await.is_ok() {}
        }
        _ => {
            let end = "Content-Length: 0\r\n\r\n";
            socket
                .write_all(format!("{line}\r\n{end}").as_bytes())
                .await
                .ok()?;
            // The caller closes, as its request announced.
            let _ = socket.read(&mut [0]).await;
        }
    }
    Some(())
}

async fn read(socket: &mut (impl AsyncRead + Unpin)) -> Option<(String, String)> {
    let mut bytes = Vec::new();
    let mut part = [0; 4096];
    loop {
        let count = socket
            .read(&mut part)
            .await
            .ok()
            .filter(|count| *count > 0)?;
        bytes.extend(&part[..count]);
        let text = String::from_utf8_lossy(&bytes);
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let mut lines = head.split("\r\n").filter_map(|line| line.split_once(": "));
        let length = lines.find(|(name, _)| name.eq_ignore_ascii_case("content-length"))?;
        if body.len() == length.1.parse::<usize>().ok()? {
            return Some((head.to_owned(), body.to_owned()));
        }
    }
}

/// Panics, and so answers nothing, when the signature is not over this body under the secret.
fn check(received: &WebhookRequest) {
    let header = received.header("switchboard-signature");
    let (time, signature) = header.split_once(",v1=").expect(header);
    let time = time.strip_prefix("t=").expect(header);
    let mut openssl = Command::new("openssl")
        .args(["dgst", "-sha256", "-hmac", SECRET])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("openssl is installed");
    let mut input = openssl.stdin.take().expect("it is piped");
    write!(input, "{time}.{}", received.body).expect("openssl reads");
    drop(input);
    let output = openssl.wait_with_output().expect("openssl ends");
    let output = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.trim().rsplit(' ').next(), Some(signature));
}
