//! The address of a node or of the proxy before the nodes: `ws[s]://HOST[:PORT]/PATH`.

use std::fmt;
use std::str::FromStr;

use url::{Host, Position, Url};

use super::parser::ValueParser;

/// A checked address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerUrl {
    tls: bool,
    host: String,
    port: u16,
    /// As it was given, completed by the path of the native protocol.
    text: String,
}

/// What is wrong with an address; the end of a sentence that begins with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServerUrlError {
    #[error("must begin with ws:// or wss://")]
    Scheme,
    #[error("is not a URL; write ws://HOST:PORT/ws")]
    Syntax,
    #[error("must have neither a user nor a password; give a token")]
    User,
    #[error("must not have a # part, which is never sent")]
    Fragment,
}

/// Where a node has the native protocol.
const PATH: &str = "/ws";

impl ServerUrl {
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

    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for ServerUrl {
    type Err = ServerUrlError;

    fn from_str(text: &str) -> Result<Self, ServerUrlError> {
        let tls = match text.split_once("://") {
            Some(("ws", _)) => false,
            Some(("wss", _)) => true,
            _ => return Err(ServerUrlError::Scheme),
        };
        let mut url = Url::parse(text).map_err(|_| ServerUrlError::Syntax)?;
        // The parser drops an empty user, but its @ remains in the text.
        let authority = text.split("://").nth(1).unwrap_or_default();
        if authority
            .split(['/', '?', '#'])
            .next()
            .is_some_and(|host| host.contains('@'))
        {
            return Err(ServerUrlError::User);
        }
        if url.fragment().is_some() {
            return Err(ServerUrlError::Fragment);
        }
        if url[Position::BeforePath..] == *"/" {
            url.set_path(PATH);
        }
        let host = match url.host().ok_or(ServerUrlError::Syntax)? {
            Host::Domain(name) => name.to_owned(),
            Host::Ipv4(address) => address.to_string(),
            Host::Ipv6(address) => address.to_string(),
        };
        Ok(Self {
            tls,
            host,
            port: url.port_or_known_default().ok_or(ServerUrlError::Syntax)?,
            text: url.into(),
        })
    }
}

pub(super) fn server_url() -> ValueParser<ServerUrl> {
    ValueParser::new(str::parse::<ServerUrl>, ServerUrl::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_completed() {
        let rows = [
            ("ws://localhost", ("localhost", 80, "ws://localhost/ws")),
            ("ws://[::1]:9090/", ("::1", 9090, "ws://[::1]:9090/ws")),
            (
                "wss://chat.example/live?x=1",
                ("chat.example", 443, "wss://chat.example/live?x=1"),
            ),
        ];
        for (text, (host, port, completed)) in rows {
            let url: ServerUrl = text.parse().unwrap();
            assert_eq!(
                (url.host(), url.port(), url.as_str()),
                (host, port, completed)
            );
            assert_eq!(url.tls(), text.starts_with("wss"));
        }
    }

    #[test]
    fn addresses_that_cannot_be_used_are_refused() {
        let rows = [
            ("localhost:9090", ServerUrlError::Scheme),
            ("http://localhost", ServerUrlError::Scheme),
            ("ws://", ServerUrlError::Syntax),
            ("ws://ada:secret@localhost/ws", ServerUrlError::User),
            ("ws://@localhost/ws", ServerUrlError::User),
            ("ws://localhost/ws#top", ServerUrlError::Fragment),
        ];
        for (text, error) in rows {
            assert_eq!(text.parse::<ServerUrl>(), Err(error), "{text}");
        }
    }
}
