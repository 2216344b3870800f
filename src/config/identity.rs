//! The values for authentication and rights: files with secrets and keys, rules for rooms. Files
//! are read here, so that `--check-config` checks their contents too.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::kinds::{pattern_of_rule, show_path};
use super::parser::ValueParser;
use crate::model::rights::{Policy, Rule};
use crate::model::secret::Secret;

/// The shortest secret, in bytes: as long as what HS256 makes of it (RFC 7518 section 3.2).
pub(crate) const SECRET_BYTES: usize = 32;

/// The largest file of keys, in bytes; larger ones are something else.
const FILE_BYTES: u64 = 1 << 20;

/// U+FEFF in UTF-8, with which some editors begin a file.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// A secret with its file.
#[derive(Clone, Debug, PartialEq)]
pub struct SecretFile {
    pub path: PathBuf,
    pub secret: Secret<Vec<u8>>,
}

/// A file of public keys, not yet checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenKey {
    /// The `kid` of the key, for a file that has none.
    pub kid: Option<String>,
    pub path: PathBuf,
    pub text: String,
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let reading =
        File::open(path).and_then(|file| file.take(FILE_BYTES + 1).read_to_end(&mut bytes));
    reading.map_err(|error| format!("cannot be read ({error})"))?;
    if bytes.len() as u64 > FILE_BYTES {
        return Err("is larger than 1 MiB, so it is something else".into());
    }
    Ok(bytes)
}

/// A file with a secret: its bytes, less what editors and shells put around them: a byte order
/// mark, blanks and line ends.
pub(super) fn secret_file() -> ValueParser<SecretFile> {
    ValueParser::new(read_secret, |file| show_path(&file.path))
}

fn read_secret(text: &str) -> Result<SecretFile, String> {
    let bytes = read(Path::new(text))?;
    let secret = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&bytes);
    let secret = secret.trim_ascii();
    if secret.len() < SECRET_BYTES {
        return Err(format!(
            "holds {} bytes, and a secret needs {SECRET_BYTES} at least; make one with: \
             openssl rand -hex 32",
            secret.len()
        ));
    }
    let (path, secret) = (text.into(), Secret::new(secret.to_vec()));
    Ok(SecretFile { path, secret })
}

/// `FILE` or `KID=FILE`.
pub(super) fn token_key() -> ValueParser<TokenKey> {
    ValueParser::new(read_key, |TokenKey { kid, path, .. }| match kid {
        Some(kid) => format!("{kid}={}", show_path(path)),
        None => show_path(path),
    })
}

fn read_key(text: &str) -> Result<TokenKey, String> {
    let (kid, path) = match text.split_once('=') {
        Some((kid, path)) => (Some(kid.to_owned()), path),
        None => (None, text),
    };
    if kid.as_ref().is_some_and(String::is_empty) {
        return Err("has no name before the =; write KID=FILE or FILE".into());
    }
    let mut bytes = read(Path::new(path))?;
    if bytes.starts_with(BYTE_ORDER_MARK) {
        bytes.drain(..BYTE_ORDER_MARK.len());
    }
    let text = String::from_utf8(bytes).map_err(|_| "is not a text file; give PEM or a JWK set")?;
    let path = path.into();
    Ok(TokenKey { kid, path, text })
}

/// `lobby.*=public`.
pub(super) fn room_rule() -> ValueParser<Rule> {
    let show = |rule: &Rule| format!("{}={}", rule.rooms, rule.policy);
    ValueParser::new(parse_room_rule, show)
}

fn parse_room_rule(text: &str) -> Result<Rule, &'static str> {
    let wrong = "is not PATTERN=POLICY, with one of public, users, read-only, server and token";
    let (pattern, policy) = text.rsplit_once('=').ok_or(wrong)?;
    let rooms = pattern_of_rule(pattern)?;
    let policy = Policy::ALL.iter().find(|(_, name)| *name == policy);
    let policy = policy.map(|(policy, _)| *policy).ok_or(wrong)?;
    Ok(Rule { rooms, policy })
}
