//! Finds the end of a head in bytes that arrive in pieces (RFC 9112 sections 2 and 3). Each byte is
//! read once, so a head that arrives in many pieces costs no more than one that arrives whole.
//! Bytes that cannot be HTTP are refused at the first wrong one instead of at a deadline. `rules`
//! parses the complete head.

use super::rules::parse_whole;
use super::{HeadLimits, Refusal, RequestHead, StatusCode, supported_method};

/// No registered method is longer; a longer one is refused before a space is seen.
const LONGEST_METHOD: usize = 32;

/// The state of a head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ParsedHead {
    /// Nothing wrong yet; read more.
    Partial,
    /// A whole head of `length` bytes. What is behind it belongs to the body, the WebSocket or the
    /// next request.
    Complete { request: RequestHead, length: usize },
}

/// The state of the search for the blank line in the bytes of one connection.
#[derive(Debug, Default)]
pub struct HeadReader {
    /// Bytes of the buffer already checked.
    checked: usize,
    part: HeadPart,
}

/// The part of the head that the next byte belongs to.
///
/// ```text
/// Method ──SP──▶ Target ──SP──▶ Rest ──CR LF CR LF──▶ complete
/// ```
#[derive(Debug, Default, Clone, Copy)]
enum HeadPart {
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
pub fn parse_head(buffer: &[u8], limits: &HeadLimits) -> Result<ParsedHead, Refusal> {
    HeadReader::default().read(buffer, limits)
}

impl HeadReader {
    /// Checks the new bytes in `buffer`, which holds everything since the head began. After
    /// `Complete` the reader is fresh, and the next head begins `length` bytes further on.
    ///
    /// # Errors
    /// The answer to send before the connection is closed. The verdict does not depend on how the
    /// bytes were cut.
    pub fn read(&mut self, buffer: &[u8], limits: &HeadLimits) -> Result<ParsedHead, Refusal> {
        let end = buffer.len().min(limits.bytes);
        while self.checked < end {
            let (before, new) = buffer[..end].split_at(self.checked);
            if let HeadPart::Rest = self.part
                && before.last() != Some(&b'\r')
            {
                // Most of a head is checked in runs: a step for each byte took a twelfth of the
                // time of a join.
                let plain = new.iter().position(u8::is_ascii_control);
                self.checked += plain.unwrap_or(new.len());
            }
            let Some(byte) = buffer[..end].get(self.checked) else {
                break;
            };
            self.check(&buffer[..self.checked], *byte, limits)?;
            self.checked += 1;
            let head = &buffer[..self.checked];
            if head.ends_with(b"\r\n\r\n") {
                *self = Self::default();
                let (request, length) = (parse_whole(head, limits)?, head.len());
                return Ok(ParsedHead::Complete { request, length });
            }
        }
        if self.checked >= limits.bytes {
            return Err(Refusal::too_large(
                "The request head is too large: send fewer or shorter header fields.",
            ));
        }
        Ok(ParsedHead::Partial)
    }

    fn check(&mut self, before: &[u8], byte: u8, limits: &HeadLimits) -> Result<(), Refusal> {
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
            HeadPart::Method => check_method(before, byte)?,
            HeadPart::Target { start } => check_target(start, before.len(), byte, limits)?,
            HeadPart::Rest => check_rest(byte)?,
        };
        Ok(())
    }
}

/// An unknown method is refused at its space, or when it is longer than any method.
fn check_method(before: &[u8], byte: u8) -> Result<HeadPart, Refusal> {
    match byte {
        b' ' if !before.is_empty() => match supported_method(before) {
            Some(_) => Ok(HeadPart::Target {
                start: before.len() + 1,
            }),
            None => Err(Refusal::unknown_method()),
        },
        _ if !is_method_byte(byte) => Err(Refusal::bad_request(
            "This is not HTTP: a request begins with a method in capitals.",
        )),
        _ if before.len() >= LONGEST_METHOD => Err(Refusal::unknown_method()),
        _ => Ok(HeadPart::Method),
    }
}

/// Only origin-form (RFC 9112 section 3.2.1): `absolute-path [ "?" query ]`.
fn check_target(
    start: usize,
    at: usize,
    byte: u8,
    limits: &HeadLimits,
) -> Result<HeadPart, Refusal> {
    match byte {
        _ if at == start && byte != b'/' => Err(Refusal::bad_request(
            "The request target must be a path that begins with a slash.",
        )),
        b' ' => Ok(HeadPart::Rest),
        _ if !byte.is_ascii_graphic() => Err(Refusal::bad_request_line()),
        _ if at - start >= limits.target => {
            let reason = "The request target is too long: shorten the path or query.";
            Err(Refusal::new(StatusCode::URI_TOO_LONG, reason))
        }
        _ => Ok(HeadPart::Target { start }),
    }
}

fn check_rest(byte: u8) -> Result<HeadPart, Refusal> {
    match byte {
        b'\r' | b'\t' => Ok(HeadPart::Rest),
        _ if byte.is_ascii_control() => Err(Refusal::bad_request(
            "Control characters are not allowed in a request head.",
        )),
        _ => Ok(HeadPart::Rest),
    }
}

/// Upper-case half of `tchar` (RFC 9110 section 5.6.2).
fn is_method_byte(byte: u8) -> bool {
    byte.is_ascii_uppercase() || byte.is_ascii_digit() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
