//! A backend that calls the HTTP API, one request after the other, with a key, and on one
//! connection for as long as the server keeps it.

use std::net::SocketAddr;

use serde_json::Value;
use switchboard::config::api_keys::{ApiKeyFile, ApiKeys};

use super::http::{Answer, HttpClient};

/// A key that is long enough, and the file of keys that holds it.
pub const KEY: &str = "a-key-of-the-tests-0123456789abcdef";

/// A file with [`KEY`]; it must live as long as a node may be started with it.
pub fn key_file() -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().expect("a file for the keys");
    std::fs::write(file.path(), format!("tests:{KEY}\n")).expect("the file is ours");
    file
}

/// The same, as a node in the test's process is given it.
pub fn keys() -> ApiKeyFile {
    ApiKeyFile {
        path: "keys".into(),
        keys: ApiKeys::parse(KEY).expect("it is long enough"),
    }
}

/// A connection to the API.
pub struct Backend {
    address: SocketAddr,
    caller: HttpClient,
    /// Fields of each request, each ending in CR LF.
    pub fields: String,
}

impl Backend {
    /// Shows [`KEY`] with each request.
    pub async fn connect(address: SocketAddr) -> Self {
        let mut backend = Self::without_key(address).await;
        backend.fields += &format!("Authorization: Bearer {KEY}\r\n");
        backend
    }

    pub async fn without_key(address: SocketAddr) -> Self {
        Self {
            address,
            caller: HttpClient::connect(address).await,
            fields: format!("Host: {address}\r\n"),
        }
    }

    /// The request as it is sent; only POST and PUT have a body.
    pub fn request(&self, method: &str, path: &str, body: &Value) -> String {
        let (body, content) = match method {
            "POST" | "PUT" => {
                let body = body.to_string();
                let kind = "Content-Type: application/json";
                let content = format!("{kind}\r\nContent-Length: {}\r\n", body.len());
                (body, content)
            }
            _ => Default::default(),
        };
        let fields = &self.fields;
        format!("{method} {path} HTTP/1.1\r\n{fields}{content}\r\n{body}")
    }

    /// Sends one call and returns its response.
    pub async fn call(&mut self, method: &str, path: &str, body: Value) -> Answer {
        let request = self.request(method, path, &body);
        self.caller.send(request).await;
        let answer = self.caller.answer().await;
        // nginx does so after a thousand requests.
        if answer.status == 200 && answer.field("Connection") == Some("close") {
            self.caller = HttpClient::connect(self.address).await;
        }
        answer
    }

    /// One call that must succeed; returns its JSON.
    pub async fn ok(&mut self, method: &str, path: &str, body: Value) -> Value {
        let answer = self.call(method, path, body).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }

    pub fn caller(&mut self) -> &mut HttpClient {
        &mut self.caller
    }
}
