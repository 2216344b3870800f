//! Bodies in chunks: the result is the same wherever the bytes are cut, and it is that of a decoder
//! that is as simple as the grammar.

use switchboard::http::{ChunkReader, ParsedBody, Refusal};

/// Bytes that a body may have.
const LIMIT: u64 = 512;

/// The first byte is the size of the pieces into which the rest is cut.
pub fn any_chunks_in_any_pieces(input: &[u8]) {
    let Some((&piece, bytes)) = input.split_first() else {
        return;
    };
    let whole = decoded(std::iter::once(bytes));
    assert_eq!(decoded(bytes.chunks(usize::from(piece).max(1))), whole);
    let Ok((ParsedBody::Complete { length }, body)) = whole else {
        return;
    };
    assert!(body.len() as u64 <= LIMIT && length as u64 <= 3 * LIMIT);
    assert_eq!(simply(&bytes[..length]), Some(body));
}

fn decoded<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Result<(ParsedBody, Vec<u8>), Refusal> {
    let mut reader = ChunkReader::new(LIMIT);
    let mut before = 0;
    for piece in pieces {
        if let ParsedBody::Complete { length } = reader.read(piece)? {
            let length = before + length;
            return Ok((ParsedBody::Complete { length }, reader.into_body()));
        }
        before += piece.len();
    }
    Ok((ParsedBody::Partial, reader.into_body()))
}

/// The body of chunks that have ended.
fn simply(mut bytes: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = bytes.windows(2).position(|two| two == b"\r\n")?;
        let size = usize::from_str_radix(str::from_utf8(&bytes[..end]).ok()?, 16).ok()?;
        bytes = &bytes[end + 2..];
        if size == 0 {
            return bytes.ends_with(b"\r\n").then_some(body);
        }
        body.extend_from_slice(bytes.get(..size)?);
        bytes = bytes[size..].strip_prefix(b"\r\n")?;
    }
}
