//! The server's half of the WebSocket handshake as plain logic, RFC 6455 sections 4.2.1 and 4.2.2.
//! Everything is checked before 101 is sent, and a refusal ends the connection: a proxy that has
//! already switched to a tunnel would forward the next bytes without inspection.

#[cfg(test)]
mod tests;

use std::net::IpAddr;

use async_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::http::{Authority, Method, Refusal, RequestHead, StatusCode, Version};

/// The requirements for a handshake besides the RFC.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rules<'a> {
    /// Foreign pages that may connect: whole origins such as `https://chat.example`, compared in
    /// any case, since scheme and host have none; `https://*.chat.example`, whose `*` is one label;
    /// or `null`, for pages that are files. Pages of the node's own host need no entry.
    pub origins: &'a [String],
    /// If set, pages of the node's own host are accepted only if that host is this address or
    /// another of this machine. A page can let its name resolve to the user's machine (DNS
    /// rebinding), and would then be same-origin with a node there in open mode.
    pub own_hosts: Option<IpAddr>,
    /// The subprotocols of this path; the client's order decides.
    pub protocols: &'a [&'static str],
}

/// A handshake that passed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// The client's first offer that is among [`Rules::protocols`], spelt our way.
    pub protocol: Option<&'static str>,
    /// The value of `Sec-WebSocket-Accept`.
    pub accept: String,
}

impl Accepted {
    /// The head of the 101. What follows it are frames.
    pub fn response(&self) -> Vec<u8> {
        let mut head = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {}\r\n",
            self.accept
        );
        if let Some(protocol) = self.protocol {
            head.push_str("Sec-WebSocket-Protocol: ");
            head.push_str(protocol);
            head.push_str("\r\n");
        }
        head.push_str("\r\n");
        head.into_bytes()
    }
}

/// Whether the request asks for an upgrade to WebSocket. HTTP/1.0 cannot, whatever its fields are
/// (RFC 9110 section 7.8).
pub fn wants_upgrade(request: &RequestHead) -> bool {
    request.version == Version::HTTP_11 && request.lists("upgrade", "websocket")
}

/// Checks a request to a WebSocket path. Extension offers are ignored.
///
/// # Errors
/// 405 for other methods than GET, 505 for HTTP/1.0, 426 without a request for WebSocket version
/// 13, 403 for a page of a foreign origin, 400 for the rest.
pub fn check(request: &RequestHead, rules: &Rules<'_>) -> Result<Accepted, Refusal> {
    if request.method != Method::GET {
        let refusal = Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "Open a WebSocket with GET.");
        return Err(refusal.with("Allow", "GET"));
    }
    if request.version != Version::HTTP_11 {
        return Err(Refusal::new(
            StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            "Open a WebSocket with HTTP/1.1.",
        ));
    }
    if !wants_upgrade(request) {
        return Err(upgrade_required(
            "This path is for WebSockets: send Upgrade: websocket.",
        ));
    }
    if !request.lists("connection", "upgrade") {
        return Err(Refusal::bad_request(
            "Connection must list upgrade; a proxy in between must pass it on.",
        ));
    }
    if !request.body.is_empty() {
        return Err(Refusal::bad_request("A WebSocket handshake has no body."));
    }
    if only(request, "sec-websocket-version") != Some("13") {
        return Err(upgrade_required(
            "Send exactly one Sec-WebSocket-Version: 13.",
        ));
    }
    let key = only(request, "sec-websocket-key").filter(|key| is_key(key));
    let Some(key) = key else {
        return Err(Refusal::bad_request(
            "Send exactly one Sec-WebSocket-Key: 16 bytes in base64.",
        ));
    };
    check_origin(request, rules)?;
    Ok(Accepted {
        protocol: choose_protocol(request, rules.protocols),
        accept: derive_accept_key(key.as_bytes()),
    })
}

/// The value of a field that was sent once.
fn only<'a>(request: &'a RequestHead, name: &str) -> Option<&'a str> {
    let mut values = request.headers(name);
    values.next().filter(|_| values.next().is_none())
}

/// Sixteen bytes in base64 (RFC 4648 section 4) are 22 characters and two of padding. The four idle
/// bits of the last character may be anything: they do not reach the bytes, and some clients set
/// them.
fn is_key(key: &str) -> bool {
    let alphabet = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    key.len() == 24
        && key
            .strip_suffix("==")
            .is_some_and(|digits| digits.bytes().all(alphabet))
}

/// Origin names the page that a browser runs (RFC 6455 section 10.2); programs send none, or any,
/// so a missing one is accepted and a valid one proves nothing about the user.
fn check_origin(request: &RequestHead, rules: &Rules<'_>) -> Result<(), Refusal> {
    let mut sent = request.headers("origin");
    let Some(origin) = sent.next() else {
        return Ok(());
    };
    if sent.next().is_some() {
        return Err(Refusal::bad_request("Send Origin once."));
    }
    let mut allowed = rules.origins.iter();
    let listed = allowed.any(|allowed| is_allowed(origin, allowed));
    let own = rules
        .own_hosts
        .is_none_or(|ip| is_own_host(&request.host, ip));
    if listed || own && is_same_host(origin, &request.host) {
        return Ok(());
    }
    if !own {
        return Err(Refusal::new(
            StatusCode::FORBIDDEN,
            "Open the page as localhost: an open node accepts no pages of other hosts, unless \
             --allow-origin names them.",
        ));
    }
    Err(Refusal::new(
        StatusCode::FORBIDDEN,
        "Pages of this origin may not connect: the operator must allow it.",
    ))
}

/// Whether an entry of the list lets this origin in.
fn is_allowed(origin: &str, allowed: &str) -> bool {
    // Some browsers send the scheme of a page that is a file, others that it has no origin.
    if allowed == "null" {
        return ["null", "file://"].contains(&origin.to_ascii_lowercase().as_str());
    }
    let Some((scheme, domain)) = allowed.split_once("://*.") else {
        return allowed.eq_ignore_ascii_case(origin);
    };
    let Some((other_scheme, host)) = origin.split_once("://") else {
        return false;
    };
    let Some((label, other_domain)) = host.split_once('.') else {
        return false;
    };
    let is_label = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    !label.is_empty()
        && label.bytes().all(is_label)
        && scheme.eq_ignore_ascii_case(other_scheme)
        && domain.eq_ignore_ascii_case(other_domain)
}

/// Whether a host can only be this machine: `localhost` and what is below it (RFC 6761 section
/// 6.3), a loopback address, or the one given.
fn is_own_host(host: &str, listen: IpAddr) -> bool {
    let Some(Authority { host, .. }) = Authority::parse(host) else {
        return false;
    };
    let ip = host.parse::<IpAddr>().map(|ip| ip.to_canonical());
    host == "localhost"
        || host.ends_with(".localhost")
        || ip.is_ok_and(|ip| ip.is_loopback() || ip == listen.to_canonical())
}

/// Whether an origin of the web names the host and port that the request was sent to. TLS ends at a
/// proxy, so the scheme is unknown here; it only determines the default port.
fn is_same_host(origin: &str, host: &str) -> bool {
    let Some((scheme, authority)) = origin.split_once("://") else {
        return false;
    };
    let default_port = match scheme.to_ascii_lowercase().as_str() {
        "http" => 80,
        "https" => 443,
        _ => return false,
    };
    let place = |text| {
        let authority = Authority::parse(text)?;
        Some((authority.host, authority.port.unwrap_or(default_port)))
    };
    let origin = place(authority);
    origin.is_some() && origin == place(host)
}

/// The answer is the server's spelling of a known name: no client text is echoed. Each offer is
/// compared once, however many there are.
fn choose_protocol(request: &RequestHead, known: &[&'static str]) -> Option<&'static str> {
    let mut offers = request.elements("sec-websocket-protocol");
    offers.find_map(|offer| known.iter().copied().find(|name| *name == offer))
}

/// RFC 6455 section 4.4: the refusal names the version that would do.
fn upgrade_required(reason: &'static str) -> Refusal {
    Refusal::new(StatusCode::UPGRADE_REQUIRED, reason)
        .with("Upgrade", "websocket")
        .with("Sec-WebSocket-Version", "13")
}
