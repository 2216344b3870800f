//! The keys of the API: read from a file, kept as SHA-256 digests, and compared in constant time,
//! so that neither memory nor timing reveals them.

use std::fs;
use std::path::PathBuf;

use aws_lc_rs::digest::{SHA256, digest};
use subtle::ConstantTimeEq;

use super::kinds::show_path;
use super::parser::ValueParser;

/// The shortest key: 32 characters of base64 or hexadecimal are 128 bits at least.
const KEY_BYTES: usize = 32;

/// The longest key; the head of a request has to hold it.
const LONGEST: usize = 1024;

/// The longest name of a key, which appears in logs.
const NAME_BYTES: usize = 64;

/// Why a file of keys is refused. The errors never quote its contents.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApiKeysError {
    #[error("it has no key; write one per line, as KEY or NAME:KEY")]
    None,
    #[error(
        "line {0}: a key must have 32 to 1024 of A-Z a-z 0-9 - . _ ~ + / =; \
         `openssl rand -hex 32` makes one"
    )]
    Key(usize),
    #[error(
        "line {0}: a key's name must be 1 to 64 of A-Z a-z 0-9 - . _ and stand in no other line"
    )]
    Name(usize),
}

/// The accepted keys.
#[derive(Clone, PartialEq)]
pub struct ApiKeys(Vec<ApiKey>);

#[derive(Clone, PartialEq)]
struct ApiKey {
    name: String,
    digest: [u8; 32],
}

/// A file of keys, as it was read when the node was configured.
#[derive(Clone, Debug, PartialEq)]
pub struct ApiKeyFile {
    pub path: PathBuf,
    pub keys: ApiKeys,
}

/// A file with the keys, which is read at once.
pub(super) fn parser() -> ValueParser<ApiKeyFile> {
    ValueParser::new(read, |file| show_path(&file.path))
}

fn read(text: &str) -> Result<ApiKeyFile, String> {
    let path = PathBuf::from(text);
    let content = fs::read_to_string(&path).map_err(|error| format!("cannot be read: {error}"))?;
    let keys = ApiKeys::parse(&content).map_err(|error| error.to_string())?;
    Ok(ApiKeyFile { path, keys })
}

impl ApiKeys {
    /// Reads a file of one key per line, as `KEY` or `NAME:KEY`; empty lines and lines that begin
    /// with `#` are skipped. A key without a name is called by its line.
    ///
    /// # Errors
    /// The first line that is wrong.
    pub fn parse(text: &str) -> Result<Self, ApiKeysError> {
        let mut keys: Vec<ApiKey> = Vec::new();
        // With which some editors begin a file.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        for (index, line) in text.lines().enumerate() {
            let (number, line) = (index + 1, line.trim());
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (name, key) = match line.split_once(':') {
                Some((name, key)) => (name.trim().to_owned(), key.trim()),
                None => (format!("line-{number}"), line),
            };
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
            let known = keys.iter().any(|key| key.name == name);
            if !(1..=NAME_BYTES).contains(&name.len()) || !name.bytes().all(plain) || known {
                return Err(ApiKeysError::Name(number));
            }
            // The characters of a bearer token (RFC 6750 section 2.1).
            let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
            if !(KEY_BYTES..=LONGEST).contains(&key.len()) || !key.bytes().all(letter) {
                return Err(ApiKeysError::Key(number));
            }
            let digest = digest_of(key);
            keys.push(ApiKey { name, digest });
        }
        if keys.is_empty() {
            return Err(ApiKeysError::None);
        }
        Ok(Self(keys))
    }

    /// The name of this key, if it is accepted. All keys are compared, so that timing reveals
    /// nothing.
    pub fn name_of(&self, presented: &str) -> Option<&str> {
        let digest = digest_of(presented);
        let mut found = None;
        for key in &self.0 {
            if bool::from(key.digest.ct_eq(&digest)) {
                found = Some(key.name.as_str());
            }
        }
        found
    }

    /// The index of the key with this name.
    pub fn index_of(&self, name: &str) -> Option<usize> {
        self.0.iter().position(|key| key.name == name)
    }
}

impl std::fmt::Debug for ApiKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names = self.0.iter().map(|key| &key.name);
        f.debug_list().entries(names).finish()
    }
}

fn digest_of(key: &str) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest(&SHA256, key.as_bytes()).as_ref());
    bytes
}
