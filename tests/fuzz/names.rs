//! Names: rooms, users, patterns, and addresses of Redis. An accepted name contains no character
//! with a meaning in Redis, JSON or a log; passwords are never printed.

use switchboard::config::RedisUrl;
use switchboard::model::id::{Epoch, RoomName, UserName};
use switchboard::model::pattern::Pattern;

/// A pattern, a line end and a name; and both together as an address of Redis.
pub fn any_name(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let (pattern, name) = text.split_once('\n').unwrap_or((text, text));
    if let Ok(room) = RoomName::new(name) {
        let other = |byte: &u8| !byte.is_ascii_graphic() || b"{}*\"\\".contains(byte);
        let bytes = room.as_str().as_bytes();
        assert!((1..=766).contains(&bytes.len()) && !bytes.iter().any(other));
    }
    if let Ok(user) = UserName::new(name) {
        assert!(!user.as_str().contains(char::is_control) && user.as_str().len() <= 255);
        assert_eq!(UserName::decode(&user.encoded()), Some(user.clone()));
        assert_eq!(user.room().owner(), Some(user));
    }
    if let Some(read) = Pattern::new(pattern) {
        // Those of personal rooms are shown as the names of the rooms are.
        assert!(pattern.starts_with('@') || read.to_string() == pattern);
        let shown = read.to_string();
        assert_eq!(
            Pattern::new(&shown).map(|again| again.to_string()),
            Some(shown.clone())
        );
        assert_eq!(read.fits(name), fits(shown.as_bytes(), name.as_bytes()));
    }
    let epoch = Epoch::parse(name);
    assert_eq!(Epoch::parse(&epoch.to_string()), epoch);
    if let Ok(url) = text.parse::<RedisUrl>() {
        assert!(url.port() > 0 && !url.host().is_empty());
        assert_eq!(url.to_string(), without_password(&url));
        assert_eq!(format!("{url:?}"), format!("RedisUrl({url})"));
    }
}

/// An address as it may be shown: made of everything but the password.
fn without_password(url: &RedisUrl) -> String {
    let scheme = if url.tls() { "rediss" } else { "redis" };
    let login = match url.password() {
        Some(_) => format!("{}:***@", url.user().unwrap_or_default()),
        None => String::new(),
    };
    let host = match url.host() {
        host if host.contains(':') => format!("[{host}]"),
        host => host.to_owned(),
    };
    format!("{scheme}://{login}{host}:{}/{}", url.port(), url.db())
}

/// Whether a name fits a pattern, by a table of all prefixes.
fn fits(pattern: &[u8], name: &[u8]) -> bool {
    let mut row = vec![false; name.len() + 1];
    row[0] = true;
    for &byte in pattern {
        let mut next = vec![false; row.len()];
        for at in 0..row.len() {
            next[at] = match byte {
                b'*' => row[at] || (at > 0 && next[at - 1]),
                _ => at > 0 && row[at - 1] && name[at - 1] == byte,
            };
        }
        row = next;
    }
    row[name.len()]
}
