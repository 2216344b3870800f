//! Finds the end of a head in bytes that arrive in pieces (RFC 9112 sections 2 and 3). Each byte is
//! looked at once, so a head that trickles in costs no more than one that comes at once, and what
//! cannot be HTTP is refused at its first wrong byte instead of waiting for a deadline. `rules`
//! reads the head when it is whole.

use super::rules::parse_whole;
use super::{HeadLimits, Method, Refusal, Request, Status};

/// No registered method is longer; a longer one is refused before a space is seen.
const LONGEST_METHOD: usize = 32;

/// What the bytes so far amount to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parsed {
    /// Nothing wrong yet; read more.
    Partial,
    /// A whole head of `length` bytes. What is behind it belongs to the body, the WebSocket or the
    /// next request.
    Complete { request: Request, length: usize },
}

/// Remembers how far the blank line was sought in the bytes of one connection.
#[derive(Debug, Default)]
pub struct HeadReader {
    /// Bytes of the buffer already looked at.
    sought: usize,
    part: Part,
}

/// Where in the head the next byte stands.
///
/// ```text
/// Method ──SP──▶ Target ──SP──▶ Rest ──CR LF CR LF──▶ complete
/// ```
#[derive(Debug, Default, Clone, Copy)]
enum Part {
    #[default]
    Method,
    Target {
        start: usize,
    },
    Rest,
}

/// Reads a head from the start of `buffer`: a [`HeadReader`] that is used once. Where bytes arrive
/// in pieces, keep a reader instead, else each piece costs the whole head again.
///
/// # Errors
/// As for [`HeadReader::read`].
pub fn parse_head(buffer: &[u8], limits: &HeadLimits) -> Result<Parsed, Refusal> {
    HeadReader::default().read(buffer, limits)
}

impl HeadReader {
    /// Looks at what is new in `buffer`, which holds everything since the head began. After
    /// `Complete` the reader is fresh, and the next head begins `length` bytes further on.
    ///
    /// # Errors
    /// The answer to send before the connection is closed. The verdict does not depend on how the
    /// bytes were cut.
    pub fn read(&mut self, buffer: &[u8], limits: &HeadLimits) -> Result<Parsed, Refusal> {
        let end = buffer.len().min(limits.bytes);
        while self.sought < end {
            let (before, new) = buffer[..end].split_at(self.sought);
            if let Part::Rest = self.part
                && before.last() != Some(&b'\r')
            {
                // Most of a head is looked at in runs: a step for each of its bytes was a twelfth
                // of what a join cost.
                let plain = new.iter().position(u8::is_ascii_control);
                self.sought += plain.unwrap_or(new.len());
            }
            let Some(byte) = buffer[..end].get(self.sought) else {
                break;
            };
            self.look_at(&buffer[..self.sought], *byte, limits)?;
            self.sought += 1;
            let head = &buffer[..self.sought];
            if head.ends_with(b"\r\n\r\n") {
                *self = Self::default();
                let (request, length) = (parse_whole(head, limits)?, head.len());
                return Ok(Parsed::Complete { request, length });
            }
        }
        if self.sought >= limits.bytes {
            return Err(too_large(
                "The request head is too large: send fewer or shorter header fields.",
            ));
        }
        Ok(Parsed::Partial)
    }

    fn look_at(&mut self, before: &[u8], byte: u8, limits: &HeadLimits) -> Result<(), Refusal> {
        match (before.last(), byte) {
            (Some(b'\r'), b'\n') => return Ok(()),
            (Some(b'\r'), _) | (_, b'\n') => {
                return Err(Refusal::bad_request(
                    "Lines of a request head must end in CR LF.",
                ));
            }
            _ => {}
        }
        self.part = match self.part {
            Part::Method => look_at_method(before, byte)?,
            Part::Target { start } => look_at_target(start, before.len(), byte, limits)?,
            Part::Rest => look_at_rest(byte)?,
        };
        Ok(())
    }
}

/// A method that is not ours is refused at its space, or where it has become longer than any.
fn look_at_method(before: &[u8], byte: u8) -> Result<Part, Refusal> {
    match byte {
        b' ' if !before.is_empty() => match Method::from_token(before) {
            Some(_) => Ok(Part::Target {
                start: before.len() + 1,
            }),
            None => Err(unknown_method()),
        },
        _ if !is_method_byte(byte) => Err(Refusal::bad_request(
            "This is not HTTP: a request begins with a method in capitals.",
        )),
        _ if before.len() >= LONGEST_METHOD => Err(unknown_method()),
        _ => Ok(Part::Method),
    }
}

/// Only origin-form (RFC 9112 section 3.2.1): `absolute-path [ "?" query ]`.
fn look_at_target(start: usize, at: usize, byte: u8, limits: &HeadLimits) -> Result<Part, Refusal> {
    match byte {
        _ if at == start && byte != b'/' => Err(Refusal::bad_request(
            "The request target must be a path that begins with a slash.",
        )),
        b' ' => Ok(Part::Rest),
        _ if !byte.is_ascii_graphic() => Err(bad_request_line()),
        _ if at - start >= limits.target => {
            let reason = "The request target is too long: shorten the path or query.";
            Err(Refusal::new(Status::UriTooLong, reason))
        }
        _ => Ok(Part::Target { start }),
    }
}

fn look_at_rest(byte: u8) -> Result<Part, Refusal> {
    match byte {
        b'\r' | b'\t' => Ok(Part::Rest),
        _ if byte.is_ascii_control() => Err(Refusal::bad_request(
            "Control characters are not allowed in a request head.",
        )),
        _ => Ok(Part::Rest),
    }
}

/// Upper-case half of `tchar` (RFC 9110 section 5.6.2).
fn is_method_byte(byte: u8) -> bool {
    byte.is_ascii_uppercase() || byte.is_ascii_digit() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

pub(super) fn bad_request_line() -> Refusal {
    Refusal::bad_request("The request line must be METHOD SP TARGET SP HTTP/1.1, in visible ASCII.")
}

pub(super) fn too_large(reason: &'static str) -> Refusal {
    Refusal::new(Status::RequestHeaderFieldsTooLarge, reason)
}

pub(super) fn unknown_method() -> Refusal {
    Refusal::new(
        Status::NotImplemented,
        "Use GET, HEAD, POST, PUT, DELETE or OPTIONS.",
    )
}
