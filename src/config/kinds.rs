//! The kinds of value that need no type of their own: addresses, names, paths, rules for rooms.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use log::LevelFilter;
use url::Url;

use super::numbers::show_time;
use super::parser::ValueParser;
use crate::model::pattern::{Pattern, RoomSwitch};
use crate::model::retention::{LogLimits, RetentionRule};

pub(super) fn switch() -> ValueParser<bool> {
    let parse = |text: &str| match text {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err("must be true or false"),
    };
    let mut parser = ValueParser::new(parse, |value| *value);
    parser.bare = true;
    parser
}

/// The address of a listener.
pub(super) fn address() -> ValueParser<SocketAddr> {
    ValueParser::new(resolve, SocketAddr::to_string)
}

fn resolve(text: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let wrong = |error| format!("is not an address like 127.0.0.1:9090 ({error})");
    let found: Vec<SocketAddr> = text.to_socket_addrs().map_err(wrong)?.collect();
    // Of a name with both (localhost), proxies and people try the IPv4 address.
    let first = found.iter().find(|address| address.is_ipv4());
    let first = first.or(found.first()).copied();
    first.ok_or_else(|| "has no address".into())
}

/// The addresses that begin like the given one: `10.0.0.0/8`; one address without the slash.
pub(super) fn network() -> ValueParser<IpNet> {
    let wrong = "is not an IP address or a network, like 10.0.0.0/8 or fd00::/8";
    let parse = move |text: &str| {
        let address = text.parse::<IpAddr>().map(IpNet::from);
        address.or_else(|_| text.parse()).map_err(|_| wrong)
    };
    ValueParser::new(parse, |network: &IpNet| {
        if network.prefix_len() == network.max_prefix_len() {
            network.addr().to_string()
        } else {
            network.to_string()
        }
    })
}

/// A text for which `fits` holds.
fn text(fits: fn(&str) -> bool, wrong: &'static str) -> ValueParser<String> {
    let parse = move |text: &str| fits(text).then(|| text.to_owned()).ok_or(wrong);
    ValueParser::new(parse, String::clone)
}

/// 1 to 64 ASCII letters, digits or `others`.
pub(super) fn label(others: &'static str) -> ValueParser<String> {
    let parse = move |text: &str| {
        let plain = |c: char| c.is_ascii_alphanumeric() || others.contains(c);
        if (1..=64).contains(&text.len()) && text.chars().all(plain) {
            return Ok(text.to_owned());
        }
        Err(format!(
            "must be 1 to 64 letters, digits or any of {others}"
        ))
    };
    ValueParser::new(parse, String::clone)
}

/// An origin as browsers send it (RFC 6454, section 6.2), without the port if it is the scheme's;
/// or `https://*.chat.example`, or `null`.
pub(super) fn origin() -> ValueParser<String> {
    ValueParser::new(parse_origin, String::clone)
}

fn parse_origin(text: &str) -> Result<String, &'static str> {
    // Pages that are files send `null`; `file://` is what people write for them.
    if ["null", "file://", "file:///"]
        .iter()
        .any(|name| text.eq_ignore_ascii_case(name))
    {
        return Ok("null".into());
    }
    let pattern = "has a * where none can be: a pattern is like https://*.chat.example, in which \
                   the * stands for exactly one label before a domain";
    let Some(origin) = plain_origin(text) else {
        return Err(if text.contains('*') {
            pattern
        } else {
            "is not an origin; write scheme and host, like https://chat.example, or null for pages \
             that are files"
        });
    };
    let host = origin.split_once("://").map_or("", |(_, host)| host);
    let domain = host.strip_prefix("*.").unwrap_or(host);
    let is_pattern = domain.len() < host.len();
    if domain.contains('*') || is_pattern && !is_domain(domain) {
        return Err(pattern);
    }
    Ok(origin)
}

/// Whether a `*` may stand before the name, with or without a port: below a top-level domain anyone
/// may have names.
fn is_domain(text: &str) -> bool {
    let name = text.split_once(':').map_or(text, |(name, _)| name);
    let labels = name.split('.');
    let is_whole = labels.clone().all(|label| !label.is_empty());
    is_whole && (name == "localhost" || labels.count() > 1)
}

fn plain_origin(text: &str) -> Option<String> {
    let url = Url::parse(text).ok()?;
    let bare = url.username().is_empty() && url.password().is_none();
    let ends = matches!(url.path(), "" | "/") && url.query().is_none();
    if !bare || !ends || url.fragment().is_some() {
        return None;
    }
    let host = url.host_str().filter(|host| !host.is_empty())?;
    let port = url.port().map(|port| format!(":{port}"));
    let (scheme, host) = (url.scheme(), host.to_ascii_lowercase());
    Some(format!("{scheme}://{host}{}", port.unwrap_or_default()))
}

/// The path of a request: a slash, then no more than what a request line holds.
pub(super) fn url_path() -> ValueParser<String> {
    let fits = |text: &str| {
        let plain = |c: char| c.is_ascii_graphic() && c != '?' && c != '#';
        text.starts_with('/') && text.chars().all(plain)
    };
    text(
        fits,
        "is not a path; it must begin with / and have no spaces, ? or #",
    )
}

/// A text of a token, compared as it is.
pub(super) fn claim() -> ValueParser<String> {
    let fits = |text: &str| (1..=256).contains(&text.len()) && !text.contains(char::is_control);
    text(fits, "must have 1 to 256 bytes and no control characters")
}

pub(super) fn directory() -> ValueParser<PathBuf> {
    path(Path::is_dir, "is not a directory that can be read")
}

pub(super) fn file() -> ValueParser<PathBuf> {
    path(Path::is_file, "is not a file that can be read")
}

fn path(fits: fn(&Path) -> bool, wrong: &'static str) -> ValueParser<PathBuf> {
    let parse = move |text: &str| {
        let path = PathBuf::from(text);
        if fits(&path) { Ok(path) } else { Err(wrong) }
    };
    ValueParser::new(parse, |path| show_path(path))
}

pub(super) fn show_path(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// A pattern of room names.
pub(super) fn room_pattern() -> ValueParser<Pattern> {
    let parse = |text: &str| Pattern::new(text).ok_or("is a pattern that fits no room name");
    ValueParser::new(parse, Pattern::to_string)
}

/// The pattern of a rule for rooms, like `chat.*` in `chat.*=500/1h`.
pub(super) fn pattern_of_rule(text: &str) -> Result<Pattern, &'static str> {
    Pattern::new(text).ok_or("has a pattern that fits no room name")
}

/// How much is kept of the rooms that fit a pattern: `chat.*=500/1h`. The bounds are those of the
/// two options for all other rooms.
pub(super) fn retention_rule(
    size: ValueParser<usize>,
    age: ValueParser<Duration>,
) -> ValueParser<RetentionRule> {
    let parse = move |text: &str| {
        let wrong = "is not PATTERN=COUNT/TIME, like chat.*=500/1h";
        let (pattern, limits) = text.rsplit_once('=').ok_or(wrong)?;
        let (size_text, age_text) = limits.split_once('/').ok_or(wrong)?;
        let rooms = pattern_of_rule(pattern)?;
        let (size, age) = (size.parse(size_text)?, age.parse(age_text)?);
        let limits = LogLimits { size, age };
        Ok::<_, String>(RetentionRule { rooms, limits })
    };
    ValueParser::new(parse, |RetentionRule { rooms, limits }| {
        format!("{rooms}={}/{}", limits.size, show_time(limits.age))
    })
}

/// Something turned on or off in the rooms that fit a pattern: `big.*=off`.
pub(super) fn room_switch() -> ValueParser<RoomSwitch> {
    let parse = |text: &str| {
        let (pattern, on) = match text.rsplit_once('=') {
            Some((pattern, "on")) => (pattern, true),
            Some((pattern, "off")) => (pattern, false),
            _ => return Err("is not PATTERN=on or PATTERN=off, like big.*=off"),
        };
        let rooms = pattern_of_rule(pattern)?;
        Ok(RoomSwitch { rooms, on })
    };
    ValueParser::new(parse, |RoomSwitch { rooms, on }| {
        format!("{rooms}={}", if *on { "on" } else { "off" })
    })
}

pub(super) fn log_level() -> ValueParser<LevelFilter> {
    let wrong = "must be one of off, error, warn, info, debug, trace";
    let parse = move |text: &str| text.parse().map_err(|_| wrong);
    ValueParser::new(parse, |level: &LevelFilter| {
        level.as_str().to_ascii_lowercase()
    })
}
