//! The address of a Redis server: `redis[s]://[[USER]:PASSWORD@]HOST[:PORT][/DB]`, with the parts
//! percent-decoded, and a password that is never shown.

use std::fmt;
use std::str::FromStr;

use percent_encoding::percent_decode_str;
use url::{Host, Url};

use super::parser::ValueParser;

/// A checked address. `Display` and `Debug` hide the password.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl {
    text: String,
    tls: bool,
    host: String,
    port: u16,
    user: Option<String>,
    password: Option<String>,
    db: u32,
}

/// What is wrong with an address; the end of a sentence that begins with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RedisUrlError {
    /// Not a URL, or one of an unsupported scheme.
    #[error("must begin with redis:// or rediss://")]
    Scheme,
    /// It cannot be taken apart.
    #[error(
        "is not a URL; write redis://USER:PASSWORD@HOST:PORT/DB, and in a password /, #, ?, @ and \
         % as %2F, %23, %3F, %40 and %25"
    )]
    Syntax,
    /// There is no host in it.
    #[error("has no host")]
    Host,
    /// Port 0 cannot be connected to.
    #[error("has port 0; ports lie between 1 and 65535")]
    Port,
    /// A user needs a password.
    #[error("has a user but no password; write redis://USER:PASSWORD@HOST, or :PASSWORD@HOST")]
    Password,
    /// The path is not a number.
    #[error("must end in the number of a database, like /0, or in nothing")]
    Db,
    /// Behind the database there is more.
    #[error("must not have a ? or # part")]
    Rest,
}

impl RedisUrl {
    /// The whole address, the password included; for a driver only, never for a log.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether to use TLS (`rediss`).
    pub fn tls(&self) -> bool {
        self.tls
    }

    /// Host name or IP address, IPv6 without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, 6379 if the address has none.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The user of Redis' access list; `None` means `default`.
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// The password; `None` means that no authentication is tried.
    pub fn password(&self) -> Option<&str> {
        self.password.as_deref()
    }

    /// The number of the database.
    pub fn db(&self) -> u32 {
        self.db
    }
}

impl FromStr for RedisUrl {
    type Err = RedisUrlError;

    fn from_str(text: &str) -> Result<RedisUrl, RedisUrlError> {
        let tls = match text.split_once("://") {
            Some(("redis", _)) => false,
            Some(("rediss", _)) => true,
            _ => return Err(RedisUrlError::Scheme),
        };
        let url = Url::parse(text).map_err(|error| match error {
            url::ParseError::EmptyHost => RedisUrlError::Host,
            _ => RedisUrlError::Syntax,
        })?;
        let host = match url.host().ok_or(RedisUrlError::Host)? {
            Host::Domain("") => return Err(RedisUrlError::Host),
            Host::Domain(name) => name.to_owned(),
            Host::Ipv4(ip) => ip.to_string(),
            Host::Ipv6(ip) => ip.to_string(),
        };
        let port = match url.port() {
            Some(0) => return Err(RedisUrlError::Port),
            port => port.unwrap_or(6379),
        };
        let user = Some(url.username())
            .filter(|user| !user.is_empty())
            .map(decoded)
            .transpose()?;
        let password = url
            .password()
            .filter(|password| !password.is_empty())
            .map(decoded)
            .transpose()?;
        if user.is_some() && password.is_none() {
            return Err(RedisUrlError::Password);
        }
        let db = match url.path() {
            "" | "/" => 0,
            path => path[1..].parse().map_err(|_| RedisUrlError::Db)?,
        };
        if url.query().is_some() || url.fragment().is_some() {
            return Err(RedisUrlError::Rest);
        }
        Ok(RedisUrl {
            text: text.into(),
            tls,
            host,
            port,
            user,
            password,
            db,
        })
    }
}

fn decoded(part: &str) -> Result<String, RedisUrlError> {
    let bytes = percent_decode_str(part)
        .decode_utf8()
        .map_err(|_| RedisUrlError::Syntax)?;
    Ok(bytes.into_owned())
}

/// Any text, which may be a mistyped address, without what may be a password in it: all between
/// the scheme and the last `@`.
pub(super) fn redact(text: &str) -> String {
    match (text.find("://"), text.rfind('@')) {
        (Some(scheme), Some(at)) if scheme < at => {
            format!("{}***{}", &text[..scheme + 3], &text[at..])
        }
        (None, Some(at)) => format!("***{}", &text[at..]),
        _ => text.into(),
    }
}

pub(super) fn parser() -> ValueParser<RedisUrl> {
    let mut parser = ValueParser::new(RedisUrl::from_str, RedisUrl::to_string).redacted(redact);
    // A password may have commas.
    parser.begins_value = |text| {
        ["redis://", "rediss://"]
            .iter()
            .any(|it| text.starts_with(it))
    };
    parser
}

impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "rediss" } else { "redis" };
        write!(f, "{scheme}://")?;
        if self.password.is_some() {
            write!(f, "{}:***@", self.user.as_deref().unwrap_or_default())?;
        }
        let brackets = if self.host.contains(':') {
            ("[", "]")
        } else {
            ("", "")
        };
        write!(
            f,
            "{}{}{}:{}/{}",
            brackets.0, self.host, brackets.1, self.port, self.db
        )
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RedisUrl({self})")
    }
}
