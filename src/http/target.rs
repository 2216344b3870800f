//! Request targets and authorities, the two URI parts of a request (RFC 3986). Both are parsed into
//! one normal form and refused if another reader could interpret them differently.

use std::net::Ipv6Addr;

use super::Refusal;

/// Splits an origin-form target into the decoded path and the query as sent.
///
/// # Errors
/// 400 for fragments, backslashes, wrong escapes, escaped control characters or slashes, and dot
/// segments.
pub(super) fn split(target: &str) -> Result<(String, Option<String>), Refusal> {
    if target.contains(['#', '\\']) || !target.is_ascii() {
        return Err(Refusal::bad_request(
            "The request target must not hold a fragment or a backslash.",
        ));
    }
    let (raw, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    };
    let query_is_clean = query.is_none_or(|query| decode(query).is_some());
    let path = decode(raw).and_then(|path| String::from_utf8(path).ok());
    let Some(path) = path.filter(|_| query_is_clean) else {
        return Err(Refusal::bad_request(
            "Escape bytes of the request target as %XX, UTF-8 in the path, and no control \
             characters.",
        ));
    };
    let slashes = |text: &str| text.matches('/').count();
    if path.contains('\\') || slashes(&path) != slashes(raw) {
        return Err(Refusal::bad_request(
            "The path must not hold an escaped slash or backslash.",
        ));
    }
    if path.split('/').any(|segment| matches!(segment, "." | "..")) {
        return Err(Refusal::bad_request(
            "The path must not hold the segments . and .. : resolve them first.",
        ));
    }
    Ok((path, query.map(str::to_owned)))
}

/// `pct-encoded = "%" HEXDIG HEXDIG`, decoded once. `None` for a wrong escape or a control
/// character.
fn decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        let byte = match byte {
            b'%' => hex(bytes.next()?)? << 4 | hex(bytes.next()?)?,
            plain => plain,
        };
        if byte.is_ascii_control() {
            return None;
        }
        decoded.push(byte);
    }
    Some(decoded)
}

fn hex(byte: u8) -> Option<u8> {
    let digit = char::from(byte).to_digit(16)?;
    u8::try_from(digit).ok()
}

/// `host [ ":" port ]` of RFC 3986 section 3.2, as found in Host and Origin. Names are letters,
/// digits, `-`, `.` and `_`: the grammar's other characters occur only in attacks.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Authority {
    /// In lower case; an IPv6 address in its shortest form, without brackets.
    pub(crate) host: String,
    pub(crate) port: Option<u16>,
}

impl Authority {
    /// `None` if `text` is anything more or less than a host and perhaps a port.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (host, rest) = match text.strip_prefix('[') {
            Some(literal) => {
                let (address, rest) = literal.split_once(']')?;
                (address.parse::<Ipv6Addr>().ok()?.to_string(), rest)
            }
            None => {
                let (name, rest) = text.split_at(text.find(':').unwrap_or(text.len()));
                if name.is_empty() || !name.bytes().all(is_name_byte) {
                    return None;
                }
                (name.to_ascii_lowercase(), rest)
            }
        };
        let port = match rest.strip_prefix(':') {
            None if rest.is_empty() => None,
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                Some(digits.parse().ok()?)
            }
            _ => return None,
        };
        Some(Self { host, port })
    }
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_')
}
