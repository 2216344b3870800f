//! An issuer of tokens: a secret in a temporary file, and the rights of a user.

use std::time::Duration;

use switchboard::auth;
use switchboard::config::{Config, SecretFile, TokenRequest};
use switchboard::dispatcher::Now;
use switchboard::model::id::UserName;
use switchboard::model::pattern::Pattern;
use switchboard::model::secret::Secret;
use tempfile::TempDir;

pub const SECRET: &str = "correct-horse-battery-staple-0123456789";

/// The file exists as long as this value.
pub struct Issuer {
    directory: TempDir,
}

impl Issuer {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory for the secret");
        let issuer = Self { directory };
        std::fs::write(issuer.path(), format!("{SECRET}\n")).expect("it can be written");
        issuer
    }

    /// The file with the secret.
    pub fn path(&self) -> String {
        let path = self.directory.path().join("secret");
        path.to_str().expect("UTF-8").to_owned()
    }

    /// Configures a node to require this issuer's tokens.
    pub fn secures(&self, config: &mut Config) {
        config.token_secret_file = Some(self.file());
    }

    fn file(&self) -> SecretFile {
        SecretFile {
            path: self.path().into(),
            secret: Secret::new(SECRET.into()),
        }
    }

    /// A token for an hour that lets its user do everything in rooms of these patterns.
    pub fn token(&self, user: &str, rooms: &[&str]) -> String {
        let hour = Duration::from_secs(3600);
        self.signed(user, hour, [rooms; 4])
    }

    /// A token with patterns for join, publish, history and members.
    pub fn signed(&self, user: &str, lifetime: Duration, rooms: [&[&str]; 4]) -> String {
        self.signed_at(Now::read().unix_ms, user, lifetime, rooms)
    }

    /// The same, issued at a time in milliseconds since 1970.
    pub fn signed_at(
        &self,
        issued: u64,
        user: &str,
        lifetime: Duration,
        rooms: [&[&str]; 4],
    ) -> String {
        let [join, publish, history, members] = rooms.map(|texts| {
            let patterns = texts.iter().map(|text| Pattern::new(text));
            patterns
                .map(|pattern| pattern.expect("a pattern"))
                .collect()
        });
        let request = TokenRequest {
            token_secret_file: self.file(),
            user: UserName::new(user).expect("a name"),
            expires: lifetime,
            audience: None,
            issuer: None,
            rooms: Vec::new(),
            join,
            publish,
            history,
            members,
        };
        let token = auth::sign(&request, issued).expect("it can be signed");
        token.expose().clone()
    }
}
