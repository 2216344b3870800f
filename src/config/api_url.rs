//! The address of the HTTP API, for the commands that call it: `http[s]://HOST[:PORT]`.

use std::fmt;
use std::str::FromStr;

use url::{Host, Position, Url};

use super::ServerUrl;
use super::parser::ValueParser;

/// A checked address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiUrl {
    tls: bool,
    host: String,
    port: u16,
}

/// What is wrong with an address; the end of a sentence that begins with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApiUrlError {
    #[error("must begin with http:// or https://")]
    Scheme,
    #[error("is not a URL; write http://HOST:PORT")]
    Syntax,
    #[error("must have no user, path, query or # part; write http://HOST:PORT")]
    Rest,
}

impl ApiUrl {
    /// The API where clients connect too: nodes serve both on one port, unless the API has a
    /// listener of its own.
    pub(crate) fn beside(url: &ServerUrl) -> Self {
        Self {
            tls: url.tls(),
            host: url.host().to_owned(),
            port: url.port(),
        }
    }

    pub(crate) fn tls(&self) -> bool {
        self.tls
    }

    /// Host name or IP address, IPv6 without brackets.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The `Host` of a request.
    pub(crate) fn authority(&self) -> String {
        let host = if self.host.contains(':') {
            format!("[{}]", self.host)
        } else {
            self.host.clone()
        };
        match (self.tls, self.port) {
            (false, 80) | (true, 443) => host,
            (_, port) => format!("{host}:{port}"),
        }
    }
}

impl fmt::Display for ApiUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.authority())
    }
}

impl FromStr for ApiUrl {
    type Err = ApiUrlError;

    fn from_str(text: &str) -> Result<Self, ApiUrlError> {
        let (tls, rest) = match text.split_once("://") {
            Some(("http", rest)) => (false, rest),
            Some(("https", rest)) => (true, rest),
            _ => return Err(ApiUrlError::Scheme),
        };
        let url = Url::parse(text).map_err(|_| ApiUrlError::Syntax)?;
        if !matches!(&url[Position::BeforePath..], "" | "/") || rest.contains('@') {
            return Err(ApiUrlError::Rest);
        }
        let host = match url.host().ok_or(ApiUrlError::Syntax)? {
            Host::Domain(name) => name.to_owned(),
            Host::Ipv4(address) => address.to_string(),
            Host::Ipv6(address) => address.to_string(),
        };
        let port = url.port_or_known_default().ok_or(ApiUrlError::Syntax)?;
        Ok(Self { tls, host, port })
    }
}

pub(super) fn api_url() -> ValueParser<ApiUrl> {
    ValueParser::new(str::parse::<ApiUrl>, ApiUrl::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_refused() {
        let rows = [
            ("http://localhost", Ok("http://localhost")),
            ("https://api.example:443/", Ok("https://api.example")),
            ("http://[::1]:9190", Ok("http://[::1]:9190")),
            ("ws://localhost", Err(ApiUrlError::Scheme)),
            ("localhost:9090", Err(ApiUrlError::Scheme)),
            ("http://", Err(ApiUrlError::Syntax)),
            ("http://localhost/api", Err(ApiUrlError::Rest)),
            ("http://ada@localhost", Err(ApiUrlError::Rest)),
        ];
        for (text, expected) in rows {
            let read = text.parse::<ApiUrl>().map(|url| url.to_string());
            assert_eq!(read, expected.map(str::to_owned), "{text}");
        }
        let node: ServerUrl = "ws://10.0.0.1:9091".parse().unwrap();
        assert_eq!(ApiUrl::beside(&node).to_string(), "http://10.0.0.1:9091");
    }
}
