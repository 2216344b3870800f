//! The address that webhooks are sent to: `http[s]://HOST[:PORT]/PATH[?QUERY]`, whose query, in
//! which some receivers require a token, is never shown.

use std::fmt;
use std::str::FromStr;

use url::{Host, Position, Url};

use super::parser::ValueParser;
use super::redis_url;

/// A checked address. `Display` and `Debug` hide the query.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookUrl {
    tls: bool,
    host: String,
    port: u16,
    loopback: bool,
    authority: String,
    target: String,
}

/// What is wrong with an address; the end of a sentence that begins with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WebhookUrlError {
    #[error("must begin with https:// or http://")]
    Scheme,
    #[error("is not a URL; write https://HOST:PORT/PATH")]
    Syntax,
    #[error("must not have a user or a password; requests are known by their signature")]
    User,
    #[error("has port 0; ports lie between 1 and 65535")]
    Port,
    #[error("must not have a # part, which is never sent")]
    Fragment,
}

impl WebhookUrl {
    /// Whether to use TLS (`https`).
    pub fn tls(&self) -> bool {
        self.tls
    }

    /// Host name or IP address, IPv6 without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, 80 or 443 if the address has none.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Host and, unless it is the scheme's, port: the Host header (RFC 9110, section 7.2).
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Path and query: the target of the request (RFC 9112, section 3.2.1).
    pub fn target(&self) -> &str {
        &self.target
    }

    /// Whether others can read the requests: without TLS, unless they stay on this machine.
    pub fn is_readable(&self) -> bool {
        !self.tls && !self.loopback
    }
}

impl FromStr for WebhookUrl {
    type Err = WebhookUrlError;

    fn from_str(text: &str) -> Result<WebhookUrl, WebhookUrlError> {
        let tls = match text.split_once("://") {
            Some(("http", _)) => false,
            Some(("https", _)) => true,
            _ => return Err(WebhookUrlError::Scheme),
        };
        let url = Url::parse(text).map_err(|_| WebhookUrlError::Syntax)?;
        // The parser drops an empty user, but the @ in front of the path remains.
        let named = text
            .split('/')
            .nth(2)
            .is_some_and(|part| part.contains('@'));
        if named || !url.username().is_empty() || url.password().is_some() {
            return Err(WebhookUrlError::User);
        }
        if url.fragment().is_some() {
            return Err(WebhookUrlError::Fragment);
        }
        let (host, loopback) = match url.host().ok_or(WebhookUrlError::Syntax)? {
            Host::Domain(name) => (name.to_owned(), name == "localhost"),
            Host::Ipv4(ip) => (ip.to_string(), ip.is_loopback()),
            Host::Ipv6(ip) => (ip.to_string(), ip.to_canonical().is_loopback()),
        };
        Ok(WebhookUrl {
            tls,
            host,
            port: url
                .port_or_known_default()
                .filter(|port| *port != 0)
                .ok_or(WebhookUrlError::Port)?,
            loopback,
            authority: url[Position::BeforeHost..Position::AfterPort].to_owned(),
            target: url[Position::BeforePath..Position::AfterQuery].to_owned(),
        })
    }
}

/// Any text, which may be a mistyped address, without what may be a secret in it: a user, a query.
fn redact(text: &str) -> String {
    let (start, query) = match text.split_once('?') {
        Some((start, _)) => (start, "?***"),
        None => (text, ""),
    };
    redis_url::redact(start) + query
}

pub(super) fn parser() -> ValueParser<WebhookUrl> {
    ValueParser::new(WebhookUrl::from_str, WebhookUrl::to_string).redacted(redact)
}

impl fmt::Display for WebhookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        let target = redact(&self.target);
        write!(f, "{scheme}://{}{target}", self.authority)
    }
}

impl fmt::Debug for WebhookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WebhookUrl({self})")
    }
}
