//! Request targets and authorities, the two URI parts of a request (RFC 3986). Both are parsed into
//! one normal form and refused if another reader could interpret them differently.

use std::net::Ipv6Addr;

use super::Refusal;

/// The parts of an origin-form target.
pub(super) struct Target {
    /// What stands between the slashes of the path, each part decoded.
    pub(super) segments: Vec<String>,
    /// The decoded path; empty if a segment contains a slash or a backslash.
    pub(super) path: String,
    /// The query as sent.
    pub(super) query: Option<String>,
}

/// The segments behind which the HTTP API has a name, which may have slashes.
const BEFORE_NAMES: [&str; 2] = ["rooms", "users"];

/// Splits the path at its slashes and then decodes each part once, as RFC 3986 section 2.4 demands.
///
/// # Errors
/// 400 for fragments, backslashes, wrong escapes, escaped control characters, escaped slashes that
/// are not in a name, and dot segments.
pub(super) fn split(target: &str) -> Result<Target, Refusal> {
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
    let text = |segment| decode(segment).and_then(|bytes| String::from_utf8(bytes).ok());
    let segments = raw.strip_prefix('/').unwrap_or(raw).split('/').map(text);
    let segments: Option<Vec<String>> = segments.collect();
    let Some(segments) = segments.filter(|_| query_is_clean) else {
        return Err(Refusal::bad_request(
            "Escape bytes of the request target as %XX, UTF-8 in the path, and no control \
             characters.",
        ));
    };
    if segments
        .iter()
        .any(|segment| matches!(&**segment, "." | ".."))
    {
        return Err(Refusal::bad_request(
            "The path must not hold the segments . and .. : resolve them first.",
        ));
    }
    let has_slash = |segment: &String| segment.contains(['/', '\\']);
    let slash_is_allowed = |index: usize| {
        index
            .checked_sub(1)
            .is_some_and(|above| BEFORE_NAMES.contains(&&*segments[above]))
    };
    let mut path = format!("/{}", segments.join("/"));
    for (index, _) in segments
        .iter()
        .enumerate()
        .filter(|(_, segment)| has_slash(segment))
    {
        if !slash_is_allowed(index) {
            return Err(Refusal::bad_request(
                "The path must not hold an escaped slash or backslash, except in the name of a \
                 room or user of the HTTP API.",
            ));
        }
        path.clear();
    }
    let query = query.map(str::to_owned);
    Ok(Target {
        segments,
        path,
        query,
    })
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
