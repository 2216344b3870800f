//! Patterns of room names: plain text in which `*` matches any number of characters, also none. No
//! other character is special. A pattern of personal rooms begins with `@`; behind it the
//! characters of a user's name may stand as they are (`@auth0|*`) or escaped as in the name of the
//! room (`@auth0%7C*`).

use std::fmt;

use crate::model::id::{PERSONAL_ROOM_BYTES, ROOM_NAME_BYTES, RoomName, UserName, is_room_byte};
use crate::model::percent;

/// See the head of this file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(String);

impl Pattern {
    /// A pattern of the characters that room names have, and `*`. `None` for any other text.
    pub fn new(text: &str) -> Option<Self> {
        if let Some(owner) = text.strip_prefix('@') {
            let parts = owner.split('*').map(percent::normalize);
            let parts: Vec<String> = parts.collect::<Option<_>>()?;
            let pattern = format!("@{}", parts.join("*"));
            let sound =
                pattern.len() <= PERSONAL_ROOM_BYTES && parts.iter().all(|part| is_of_a_name(part));
            return sound.then_some(Self(pattern));
        }
        let allowed = |byte| is_room_byte(byte) || byte == b'*';
        let sound = (1..=ROOM_NAME_BYTES).contains(&text.len()) && text.bytes().all(allowed);
        sound.then(|| Self(text.into()))
    }

    /// Whether a room's name fits. A star never matches the first character of the server's rooms
    /// (`$`) or of a user's (`@`): a pattern for those begins with it, so that `*` means the
    /// ordinary rooms.
    pub fn fits_room(&self, room: &RoomName) -> bool {
        let name = room.as_str();
        (!room.is_reserved() || self.0.starts_with(&name[..1])) && self.fits(name)
    }

    /// Whether the whole name fits. Each part between stars is searched once; names are short.
    pub fn fits(&self, name: &str) -> bool {
        let mut parts = self.0.split('*');
        let first = parts.next().unwrap_or_default();
        let Some(mut rest) = name.strip_prefix(first) else {
            return false;
        };
        let Some(last) = parts.next_back() else {
            return rest.is_empty();
        };
        for part in parts {
            // The first match is as good as any: a star follows, which matches up to the next part.
            let Some(at) = rest.find(part) else {
                return false;
            };
            rest = &rest[at + part.len()..];
        }
        rest.ends_with(last)
    }
}

/// Whether an encoded part of a pattern can be a part of a user's name.
fn is_of_a_name(part: &str) -> bool {
    part.is_empty() || UserName::decode(part).is_some()
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A rule that turns something on or off in the rooms that fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoomSwitch {
    pub rooms: Pattern,
    pub on: bool,
}

/// Rules for what is on; the first that fits applies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Switches(pub Vec<RoomSwitch>);

impl Switches {
    /// Whether it is on in the room: by the first rule that fits, else in all rooms but the
    /// server's and users' personal ones.
    pub fn is_on(&self, room: &RoomName) -> bool {
        let rule = self.0.iter().find(|rule| rule.rooms.fits_room(room));
        rule.map_or(!room.is_reserved(), |rule| rule.on)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The naive model: try every length for the star.
    fn naive(pattern: &[u8], name: &[u8]) -> bool {
        match (pattern, name) {
            ([], name) => name.is_empty(),
            ([b'*', rest @ ..], name) => (0..=name.len()).any(|skip| naive(rest, &name[skip..])),
            ([first, rest @ ..], [head, tail @ ..]) => first == head && naive(rest, tail),
            _ => false,
        }
    }

    #[test]
    fn patterns_agree_with_a_naive_model() {
        let mut random = fastrand::Rng::with_seed(1);
        for _ in 0..20_000 {
            let mut text = |alphabet: &[u8], length| -> String {
                (0..length)
                    .map(|_| char::from(*random.choice(alphabet).unwrap()))
                    .collect()
            };
            let pattern = text(b"ab*", 5);
            let name = text(b"ab", 6);
            for end in 0..=name.len() {
                let (pattern, name) = (&pattern, &name[..end]);
                let expected = naive(pattern.as_bytes(), name.as_bytes());
                assert_eq!(
                    Pattern::new(pattern).unwrap().fits(name),
                    expected,
                    "{pattern} {name}"
                );
            }
        }
    }

    #[test]
    fn first_switch_that_fits_applies_and_ordinary_rooms_default_to_on() {
        let switch = |text: &str, on| {
            let rooms = Pattern::new(text).unwrap();
            RoomSwitch { rooms, on }
        };
        let switches = Switches(vec![switch("big.vip", true), switch("big.*", false)]);
        let ordinary = [("big.vip", true), ("big.x", false), ("small", true)];
        for (name, on) in ordinary
            .into_iter()
            .chain([("@ada", false), ("$nodes", false)])
        {
            let room = RoomName::new(name).unwrap();
            assert_eq!(switches.is_on(&room), on, "{name}");
        }
        let personal = Switches(vec![switch("*", false), switch("@*", true)]);
        assert!(personal.is_on(&RoomName::new("@ada").unwrap()));
    }

    #[test]
    fn text_that_no_room_name_could_have_is_no_pattern() {
        for text in [
            "",
            "a b",
            "a{b}",
            "ä",
            "a\"",
            "a\\",
            "@a\0*",
            "@%FF*",
            "@*\u{202e}",
        ] {
            assert_eq!(Pattern::new(text), None, "{text}");
        }
    }

    #[test]
    fn pattern_of_personal_rooms_takes_users_as_they_are_or_escaped() {
        let room = UserName::new("auth0|5f7c").unwrap().room();
        for text in ["@auth0|*", "@auth0%7C*", "@auth0%7c5f7c", "@*|5*", "@*"] {
            assert!(Pattern::new(text).unwrap().fits_room(&room), "{text}");
        }
        assert_eq!(Pattern::new("@ö*").unwrap().to_string(), "@%C3%B6*");
        for text in ["team/*", "a=*", "user#?"] {
            let room = RoomName::new(&text.replace('*', "1")).unwrap();
            assert!(Pattern::new(text).unwrap().fits_room(&room), "{text}");
        }
    }
}
