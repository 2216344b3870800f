//! The kinds of value an option may have: how one is read from text, bounded, and shown again.
//! The shapes in `shapes.rs` define how many of them an option takes.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use log::LevelFilter;
use url::Url;

use super::redis_url::{self, RedisUrl};
use super::webhook_url::{self, WebhookUrl};
use crate::config::api_keys::{ApiKeyFile, ApiKeys};
use crate::model::pattern::{self, Pattern};
use crate::model::retention::{LogLimits, Rule};

pub(super) const KIB: usize = 1024;
pub(super) const MIB: usize = 1024 * KIB;
pub(super) const GIB: usize = 1024 * MIB;
pub(super) const TENTH: Duration = Duration::from_millis(100);
pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const MINUTE: Duration = Duration::from_secs(60);
pub(super) const HOUR: Duration = Duration::from_secs(3600);

/// One kind of value. Errors are the end of a sentence that begins with the option and the text.
pub(super) trait Kind {
    type Value;
    /// Whether the flag may have no value, which means `true`.
    const BARE: bool = false;
    fn parse(&self, text: &str) -> Result<Self::Value, String>;
    fn show(&self, value: &Self::Value) -> toml::Value;
    /// The least and the greatest value, for `--help`.
    fn range(&self) -> Option<(String, String)> {
        None
    }
    /// The text as an error message may repeat it, without secrets.
    fn echo(&self, text: &str) -> String {
        text.into()
    }
}

fn within<T: PartialOrd>(value: T, from: T, to: T, show: fn(T) -> String) -> Result<T, String> {
    if from <= value && value <= to {
        return Ok(value);
    }
    Err(format!("must lie between {} and {}", show(from), show(to)))
}

/// Splits `64KiB` into the number and the unit.
fn number_and_unit(text: &str) -> Option<(u64, &str)> {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    Some((text[..end].parse().ok()?, &text[end..]))
}

/// A duration between two bounds, both included.
pub(super) struct Time(pub Duration, pub Duration);

impl Kind for Time {
    type Value = Duration;
    fn parse(&self, text: &str) -> Result<Duration, String> {
        let millis = number_and_unit(text).and_then(|(number, unit)| match unit {
            "ms" => Some(number),
            "s" => number.checked_mul(1000),
            "m" => number.checked_mul(60_000),
            "h" => number.checked_mul(3_600_000),
            "" if number == 0 => Some(0),
            _ => None,
        });
        let wrong = "is not a duration; write a number and a unit, like 500ms, 25s, 5m or 2h";
        let duration = millis.map(Duration::from_millis).ok_or(wrong)?;
        within(duration, self.0, self.1, show_time)
    }
    fn show(&self, value: &Duration) -> toml::Value {
        show_time(*value).into()
    }
    fn range(&self) -> Option<(String, String)> {
        Some((show_time(self.0), show_time(self.1)))
    }
}

/// In the largest unit that loses nothing (of whole milliseconds).
pub(super) fn show_time(time: Duration) -> String {
    let millis = time.as_millis();
    match [(3_600_000, "h"), (60_000, "m"), (1000, "s")]
        .into_iter()
        .find(|(n, _)| millis.is_multiple_of(*n))
    {
        Some(_) if millis == 0 => "0s".into(),
        Some((n, unit)) => format!("{}{unit}", millis / n),
        None => format!("{millis}ms"),
    }
}

/// A number of bytes between two bounds, both included.
pub(super) struct Size(pub usize, pub usize);

impl Kind for Size {
    type Value = usize;
    fn parse(&self, text: &str) -> Result<usize, String> {
        let bytes = number_and_unit(text).and_then(|(number, unit)| {
            let number = usize::try_from(number).ok()?;
            match unit {
                "" | "B" => Some(number),
                "KiB" => number.checked_mul(KIB),
                "MiB" => number.checked_mul(MIB),
                "GiB" => number.checked_mul(GIB),
                _ => None,
            }
        });
        let wrong = "is not a size; write a number of bytes, like 65536, or 64KiB, 1MiB or 2GiB";
        within(bytes.ok_or(wrong)?, self.0, self.1, show_size)
    }
    fn show(&self, value: &usize) -> toml::Value {
        show_size(*value).into()
    }
    fn range(&self) -> Option<(String, String)> {
        Some((show_size(self.0), show_size(self.1)))
    }
}

/// In the largest unit that loses nothing.
pub(super) fn show_size(size: usize) -> String {
    match [(GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")]
        .into_iter()
        .find(|(n, _)| size.is_multiple_of(*n))
    {
        Some((n, unit)) if size > 0 => format!("{}{unit}", size / n),
        _ => size.to_string(),
    }
}

/// A plain number between two bounds, both included.
pub(super) struct Count(pub usize, pub usize);

impl Kind for Count {
    type Value = usize;
    fn parse(&self, text: &str) -> Result<usize, String> {
        let number = text.parse().map_err(|_| "is not a whole number")?;
        within(number, self.0, self.1, |number| number.to_string())
    }
    fn show(&self, value: &usize) -> toml::Value {
        i64::try_from(*value).unwrap_or(i64::MAX).into()
    }
    fn range(&self) -> Option<(String, String)> {
        Some((self.0.to_string(), self.1.to_string()))
    }
}

pub(super) struct Switch;

impl Kind for Switch {
    type Value = bool;
    const BARE: bool = true;
    fn parse(&self, text: &str) -> Result<bool, String> {
        match text {
            "true" | "1" => Ok(true),
            "false" | "0" => Ok(false),
            _ => Err("must be true or false".into()),
        }
    }
    fn show(&self, value: &bool) -> toml::Value {
        (*value).into()
    }
}

pub(super) struct Address;

impl Kind for Address {
    type Value = SocketAddr;
    fn parse(&self, text: &str) -> Result<SocketAddr, String> {
        if let Ok(addr) = text.parse() {
            return Ok(addr);
        }
        let wrong = |error| format!("is not an address like 127.0.0.1:9090 ({error})");
        let found: Vec<SocketAddr> = text.to_socket_addrs().map_err(wrong)?.collect();
        // Of a name with both (localhost), proxies and people try the IPv4 address.
        let first = found.iter().find(|addr| addr.is_ipv4()).or(found.first());
        first.copied().ok_or_else(|| "has no address".into())
    }
    fn show(&self, value: &SocketAddr) -> toml::Value {
        value.to_string().into()
    }
}

pub(super) struct Ip;

impl Kind for Ip {
    type Value = IpAddr;
    fn parse(&self, text: &str) -> Result<IpAddr, String> {
        text.parse().map_err(|_| "is not an IP address".into())
    }
    fn show(&self, value: &IpAddr) -> toml::Value {
        value.to_string().into()
    }
}

/// 1 to 64 ASCII letters, digits or `others`.
pub(super) struct Label {
    pub others: &'static str,
}

impl Kind for Label {
    type Value = String;
    fn parse(&self, text: &str) -> Result<String, String> {
        let plain = |c: char| c.is_ascii_alphanumeric() || self.others.contains(c);
        if (1..=64).contains(&text.len()) && text.chars().all(plain) {
            return Ok(text.into());
        }
        Err(format!(
            "must be 1 to 64 letters, digits or any of {}",
            self.others
        ))
    }
    fn show(&self, value: &String) -> toml::Value {
        value.as_str().into()
    }
}

/// An origin as browsers send it (RFC 6454, section 6.2), without the port if it is the scheme's.
pub(super) struct Origin;

impl Kind for Origin {
    type Value = String;
    fn parse(&self, text: &str) -> Result<String, String> {
        let url = Url::parse(text).ok().filter(|url| {
            let bare = url.username().is_empty() && url.password().is_none();
            let ends = matches!(url.path(), "" | "/") && url.query().is_none();
            bare && ends && url.fragment().is_none()
        });
        let wrong = "is not an origin; write scheme and host, like https://chat.example";
        let url = url.ok_or(wrong)?;
        let host = url
            .host_str()
            .filter(|host| !host.is_empty())
            .ok_or(wrong)?;
        let port = url
            .port()
            .map(|port| format!(":{port}"))
            .unwrap_or_default();
        Ok(format!(
            "{}://{}{port}",
            url.scheme(),
            host.to_ascii_lowercase()
        ))
    }
    fn show(&self, value: &String) -> toml::Value {
        value.as_str().into()
    }
}

/// The path of a request: a slash, then no more than what a request line holds.
pub(super) struct UrlPath;

impl Kind for UrlPath {
    type Value = String;
    fn parse(&self, text: &str) -> Result<String, String> {
        let plain = |c: char| c.is_ascii_graphic() && c != '?' && c != '#';
        if text.starts_with('/') && text.chars().all(plain) {
            return Ok(text.into());
        }
        Err("is not a path; it must begin with / and have no spaces, ? or #".into())
    }
    fn show(&self, value: &String) -> toml::Value {
        value.as_str().into()
    }
}

pub(super) struct Directory;

impl Kind for Directory {
    type Value = PathBuf;
    fn parse(&self, text: &str) -> Result<PathBuf, String> {
        let path = PathBuf::from(text);
        if path.is_dir() {
            Ok(path)
        } else {
            Err("is not a directory that can be read".into())
        }
    }
    fn show(&self, value: &PathBuf) -> toml::Value {
        value.to_string_lossy().into_owned().into()
    }
}

pub(super) struct PlainFile;

impl Kind for PlainFile {
    type Value = PathBuf;
    fn parse(&self, text: &str) -> Result<PathBuf, String> {
        let path = PathBuf::from(text);
        if path.is_file() {
            Ok(path)
        } else {
            Err("is not a file that can be read".into())
        }
    }
    fn show(&self, value: &PathBuf) -> toml::Value {
        value.to_string_lossy().into_owned().into()
    }
}

/// A file with the keys of the HTTP API, which is read at once.
pub(super) struct KeysIn;

impl Kind for KeysIn {
    type Value = ApiKeyFile;
    fn parse(&self, text: &str) -> Result<ApiKeyFile, String> {
        let read = std::fs::read_to_string(text);
        let content = read.map_err(|error| format!("cannot be read: {error}"))?;
        let keys = ApiKeys::parse(&content).map_err(|error| error.to_string())?;
        let path = PathBuf::from(text);
        Ok(ApiKeyFile { path, keys })
    }
    fn show(&self, value: &ApiKeyFile) -> toml::Value {
        value.path.to_string_lossy().into_owned().into()
    }
}

pub(super) struct Redis;

impl Kind for Redis {
    type Value = RedisUrl;
    fn parse(&self, text: &str) -> Result<RedisUrl, String> {
        text.parse()
            .map_err(|error: redis_url::RedisUrlError| error.to_string())
    }
    fn show(&self, value: &RedisUrl) -> toml::Value {
        value.to_string().into()
    }
    fn echo(&self, text: &str) -> String {
        redis_url::redact(text)
    }
}

pub(super) struct Webhook;

impl Kind for Webhook {
    type Value = WebhookUrl;
    fn parse(&self, text: &str) -> Result<WebhookUrl, String> {
        text.parse()
            .map_err(|error: webhook_url::WebhookUrlError| error.to_string())
    }
    fn show(&self, value: &WebhookUrl) -> toml::Value {
        value.to_string().into()
    }
    fn echo(&self, text: &str) -> String {
        webhook_url::redact(text)
    }
}

/// A pattern of room names.
pub(super) struct Rooms;

impl Kind for Rooms {
    type Value = Pattern;
    fn parse(&self, text: &str) -> Result<Pattern, String> {
        Pattern::new(text).ok_or_else(|| "is a pattern that fits no room name".into())
    }
    fn show(&self, value: &Pattern) -> toml::Value {
        value.to_string().into()
    }
}

/// How much is kept of the rooms that fit a pattern: `chat.*=500/1h`. The bounds are those of the
/// two options for all other rooms.
pub(super) struct Keep(pub Count, pub Time);

impl Kind for Keep {
    type Value = Rule;
    fn parse(&self, text: &str) -> Result<Rule, String> {
        let wrong = "is not PATTERN=COUNT/TIME, like chat.*=500/1h";
        let (pattern, limits) = text.split_once('=').ok_or(wrong)?;
        let (size, age) = limits.split_once('/').ok_or(wrong)?;
        let rooms = Pattern::new(pattern).ok_or("has a pattern that fits no room name")?;
        let (size, age) = (self.0.parse(size)?, self.1.parse(age)?);
        Ok(Rule {
            rooms,
            limits: LogLimits { size, age },
        })
    }
    fn show(&self, rule: &Rule) -> toml::Value {
        let Rule { rooms, limits } = rule;
        format!("{rooms}={}/{}", limits.size, show_time(limits.age)).into()
    }
}

/// Something turned on or off in the rooms that fit a pattern: `big.*=off`.
pub(super) struct OnOff;

impl Kind for OnOff {
    type Value = pattern::Switch;
    fn parse(&self, text: &str) -> Result<pattern::Switch, String> {
        let (rooms, on) = match text.rsplit_once('=') {
            Some((rooms, "on")) => (rooms, true),
            Some((rooms, "off")) => (rooms, false),
            _ => return Err("is not PATTERN=on or PATTERN=off, like big.*=off".into()),
        };
        let rooms = Pattern::new(rooms).ok_or("has a pattern that fits no room name")?;
        Ok(pattern::Switch { rooms, on })
    }
    fn show(&self, switch: &pattern::Switch) -> toml::Value {
        let state = if switch.on { "on" } else { "off" };
        format!("{}={state}", switch.rooms).into()
    }
}

pub(super) struct Level;

impl Kind for Level {
    type Value = LevelFilter;
    fn parse(&self, text: &str) -> Result<LevelFilter, String> {
        text.parse()
            .map_err(|_| "must be one of off, error, warn, info, debug, trace".into())
    }
    fn show(&self, value: &LevelFilter) -> toml::Value {
        value.as_str().to_ascii_lowercase().into()
    }
}
