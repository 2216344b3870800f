//! A request body in chunks (RFC 9112 section 7.1), read as its bytes arrive. The grammar is
//! stricter than the RFC's where two readers could disagree on the end of the body: lines end in
//! CR LF, a size is 1 to 8 hexadecimal digits and nothing else, and there are no extensions.

use super::{Refusal, StatusCode};

/// Digits of a chunk's size; 8 are enough for 4 GiB, far above any limit.
const SIZE_DIGITS: u8 = 8;

/// Fields behind the last chunk, which are checked and discarded. Clients that send any send a
/// digest or two.
const TRAILER_FIELDS: u8 = 8;

/// How many bytes of framing (sizes, line ends, trailer fields) a body may have for each byte that
/// the limit of the body permits. Clients that write in small pieces need less than one.
const FRAMING_FACTOR: u64 = 2;

/// The state of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParsedBody {
    /// Nothing wrong yet, and every byte was taken; read more.
    Partial,
    /// The body has ended after so many of the bytes. What is behind it belongs to the next
    /// request.
    Complete { length: usize },
}

/// Decodes a body whose bytes arrive in pieces. Each byte is read once.
#[derive(Debug)]
pub struct ChunkReader {
    /// Bytes that the decoded body may have.
    limit: u64,
    part: ChunkPart,
    /// Bytes of framing so far.
    framing: u64,
    trailer_fields: u8,
    body: Vec<u8>,
}

/// The part of the body that the next byte belongs to.
///
/// ```text
///             ┌──────────────────────── CR LF ◀── DataCr ◀─┐
///             ▼                                            │ all of the chunk
/// Size ──CR──▶ SizeLf ──LF, size > 0──────────────▶ Data ──┘
///                └──────LF, size = 0──▶ Trailer ──CR──▶ EndLf ──LF──▶ complete
///                                       │    ▲
///                                       ▼    └─LF── FieldLf ◀──CR─┐
///                                   FieldName ──:──▶ FieldValue ──┘
/// ```
#[derive(Debug, Clone, Copy)]
enum ChunkPart {
    Size { digits: u8, size: u64 },
    SizeLf { size: u64 },
    Data { left: u64 },
    DataCr,
    DataLf,
    Trailer,
    FieldName,
    FieldValue,
    FieldLf,
    EndLf,
}

const FIRST: ChunkPart = ChunkPart::Size { digits: 0, size: 0 };

impl ChunkReader {
    /// For a body of at most `limit` decoded bytes.
    pub fn new(limit: u64) -> Self {
        Self {
            limit,
            part: FIRST,
            framing: 0,
            trailer_fields: 0,
            body: Vec::new(),
        }
    }

    /// Takes the bytes that follow those of the last call, up to the end of the body. A size that
    /// is only announced reserves no memory.
    ///
    /// # Errors
    /// The answer to send before the connection is closed. The verdict does not depend on how the
    /// bytes were cut.
    pub fn read(&mut self, bytes: &[u8]) -> Result<ParsedBody, Refusal> {
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            if let ChunkPart::Data { left } = self.part {
                let rest = &bytes[at..];
                let data = &rest[..rest.len().min(usize::try_from(left).unwrap_or(usize::MAX))];
                self.body.extend_from_slice(data);
                at += data.len();
                self.part = match left - data.len() as u64 {
                    0 => ChunkPart::DataCr,
                    left => ChunkPart::Data { left },
                };
                continue;
            }
            at += 1;
            self.framing += 1;
            if self.framing > self.limit.saturating_mul(FRAMING_FACTOR) {
                return Err(too_large(
                    "The body has too much framing: send larger chunks.",
                ));
            }
            let Some(part) = self.next_part(byte)? else {
                return Ok(ParsedBody::Complete { length: at });
            };
            self.part = part;
        }
        Ok(ParsedBody::Partial)
    }

    /// The decoded body.
    pub fn into_body(self) -> Vec<u8> {
        self.body
    }

    /// The part behind a byte of framing; `None` at the end of the body.
    fn next_part(&mut self, byte: u8) -> Result<Option<ChunkPart>, Refusal> {
        let next = match (self.part, byte) {
            (ChunkPart::Size { digits: 1.., size }, b'\r') => ChunkPart::SizeLf { size },
            (ChunkPart::Size { digits, size }, _) => size_part(digits, size, byte)?,
            (ChunkPart::SizeLf { size: 0 }, b'\n') => ChunkPart::Trailer,
            (ChunkPart::SizeLf { size }, b'\n') => self.data_part(size)?,
            (ChunkPart::DataCr, b'\r') => ChunkPart::DataLf,
            (ChunkPart::DataLf, b'\n') => FIRST,
            (ChunkPart::Trailer, b'\r') => ChunkPart::EndLf,
            (ChunkPart::Trailer, _) if is_token_byte(byte) => self.trailer_field()?,
            (ChunkPart::FieldName, b':') => ChunkPart::FieldValue,
            (ChunkPart::FieldName, _) if is_token_byte(byte) => ChunkPart::FieldName,
            (ChunkPart::FieldValue, b'\r') => ChunkPart::FieldLf,
            (ChunkPart::FieldValue, b'\t') => ChunkPart::FieldValue,
            (ChunkPart::FieldValue, _) if !byte.is_ascii_control() => ChunkPart::FieldValue,
            (ChunkPart::FieldLf, b'\n') => ChunkPart::Trailer,
            (ChunkPart::EndLf, b'\n') => return Ok(None),
            (ChunkPart::Trailer | ChunkPart::FieldName | ChunkPart::FieldValue, _) => {
                return Err(Refusal::bad_request(
                    "A field behind the last chunk must be NAME: VALUE on one line.",
                ));
            }
            _ => {
                return Err(Refusal::bad_request(
                    "Each chunk must be its size, CR LF, so many bytes, and CR LF.",
                ));
            }
        };
        Ok(Some(next))
    }

    /// The data of a chunk, if the limit of the body has space for all of it.
    fn data_part(&self, size: u64) -> Result<ChunkPart, Refusal> {
        if size > self.limit - self.body.len() as u64 {
            return Err(too_large("The body is too large: send less at once."));
        }
        Ok(ChunkPart::Data { left: size })
    }

    fn trailer_field(&mut self) -> Result<ChunkPart, Refusal> {
        if self.trailer_fields == TRAILER_FIELDS {
            return Err(Refusal::too_large(
                "The request has too many fields behind its last chunk: send 8 at most.",
            ));
        }
        self.trailer_fields += 1;
        Ok(ChunkPart::FieldName)
    }
}

/// `chunk-size = 1*HEXDIG`, with a bound.
fn size_part(digits: u8, size: u64, byte: u8) -> Result<ChunkPart, Refusal> {
    let digit = char::from(byte).to_digit(16);
    match digit.filter(|_| digits < SIZE_DIGITS) {
        Some(digit) => Ok(ChunkPart::Size {
            digits: digits + 1,
            size: size << 4 | u64::from(digit),
        }),
        None => Err(Refusal::bad_request(
            "A chunk's size must be 1 to 8 hexadecimal digits and CR LF, without extensions.",
        )),
    }
}

/// `tchar` (RFC 9110 section 5.6.2).
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn too_large(reason: &'static str) -> Refusal {
    Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, reason)
}
