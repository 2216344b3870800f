//! How a receiver knows that a request is ours: HMAC-SHA256 (RFC 2104) over the time of sending, a full stop and the body, under a secret
//! that both know. The time lets it refuse what somebody has recorded and sends again later.

use std::fmt::Write as _;

use aws_lc_rs::hmac::{self, HMAC_SHA256};

/// The name of the header.
pub const HEADER: &str = "switchboard-signature";

/// The shortest secret, in bytes: as long as what it makes (RFC 2104, section 3).
pub const SECRET_BYTES: usize = 32;

/// The secret, ready for use. `Debug` does not show it.
#[derive(Clone, Debug)]
pub struct Key(hmac::Key);

impl Key {
    /// The secret in a file's contents: all of them but the ends of lines behind it, which editors add. `None` when it is too short.
    pub fn new(contents: &[u8]) -> Option<Self> {
        let end = contents.iter().rposition(|byte| !b"\r\n".contains(byte))?;
        let secret = &contents[..=end];
        (secret.len() >= SECRET_BYTES).then(|| Self(hmac::Key::new(HMAC_SHA256, secret)))
    }

    /// The header's value, `t=SECONDS,v1=HEX`, for a body that is sent at `time`, in seconds since 1970.
    pub fn sign(&self, time: u64, body: &str) -> String {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(format!("{time}.").as_bytes());
        context.update(body.as_bytes());
        let mut value = format!("t={time},v1=");
        for byte in context.sign().as_ref() {
            // Writing into a String cannot fail.
            let _ = write!(value, "{byte:02x}");
        }
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

    #[test]
    fn the_signature_is_what_openssl_says() {
        // printf '1764000000.{"a":1}' | openssl dgst -sha256 -hmac 0123456789abcdef0123456789abcdef
        let expected = "020c626f1ccd9fdc1fb78034d6735bdca794ce2de3efea76942a018a08ac78bc";
        let signed = Key::new(SECRET).unwrap().sign(1_764_000_000, r#"{"a":1}"#);
        assert_eq!(signed, format!("t=1764000000,v1={expected}"));
    }

    #[test]
    fn the_end_of_the_line_is_no_part_of_the_secret_and_short_ones_are_refused() {
        let signed = |contents: &[u8]| Key::new(contents).map(|key| key.sign(1, "x"));
        assert_eq!(signed(&[SECRET, b"\r\n\n"].concat()), signed(SECRET));
        assert_ne!(signed(&[SECRET, b" "].concat()), signed(SECRET));
        for short in [
            &b""[..],
            b"\n",
            &SECRET[1..],
            &[&SECRET[1..], b"\n"].concat(),
        ] {
            assert!(Key::new(short).is_none(), "{short:?}");
        }
        assert!(!format!("{:?}", Key::new(SECRET)).contains("0123"));
    }
}
