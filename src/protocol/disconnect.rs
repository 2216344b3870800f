//! The reasons for which the server closes a connection, and their close codes (RFC 6455 section
//! 7.4). This is the only table of close codes. The range states whether the client should
//! reconnect: with 3000–3499 and 4000–4499 it should, with 3500–3999 and 4500–4999 it should not.
//! Codes below 3000 are the RFC's own: after 1011, a fault of the node, the client should
//! reconnect; the others report a fault in the client's program, which a new connection would only
//! repeat.

/// A reason to end a connection. Refusing one command is another thing: see
/// [`CommandError`](crate::protocol::CommandError).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disconnect {
    /// A frame that breaks RFC 6455.
    BadFrame,
    /// A binary frame where the protocol is text.
    Binary,
    /// A text frame that is not UTF-8.
    NotUtf8,
    /// A message of more frames than the limit.
    Fragments,
    /// A message above the limit.
    TooBig,
    /// A fault in this node; the connection's task panicked.
    Internal,
    /// The node is stopping.
    Draining,
    /// The client reads more slowly than its rooms publish, and its outbox is full.
    Slow,
    /// A ping was not answered in time.
    Silent,
    /// The client has sent more than its rate allows for too long, although its reader paused.
    TooFast,
    /// A message took longer to arrive than it may.
    Stalled,
    /// The token of the session has expired, and no newer one was shown.
    Expired,
    /// A backend has ended the connections of this user.
    Ended,
    /// The token of the session may be older than its user's revocation, or newer.
    Doubtful,
    /// The next message of a room of the session is in a newer format than this node reads.
    Unreadable,
    /// The token of the session was revoked.
    Revoked,
}

impl Disconnect {
    /// Every reason, in the order of the table in the README.
    pub const ALL: [Disconnect; 16] = [
        Disconnect::BadFrame,
        Disconnect::Binary,
        Disconnect::NotUtf8,
        Disconnect::Fragments,
        Disconnect::TooBig,
        Disconnect::Internal,
        Disconnect::Draining,
        Disconnect::Slow,
        Disconnect::Silent,
        Disconnect::TooFast,
        Disconnect::Stalled,
        Disconnect::Expired,
        Disconnect::Ended,
        Disconnect::Doubtful,
        Disconnect::Unreadable,
        Disconnect::Revoked,
    ];

    pub fn code(self) -> u16 {
        match self {
            Disconnect::BadFrame => 1002,
            Disconnect::Binary => 1003,
            Disconnect::NotUtf8 => 1007,
            Disconnect::Fragments => 1008,
            Disconnect::TooBig => 1009,
            Disconnect::Internal => 1011,
            Disconnect::Draining => 3001,
            Disconnect::Slow => 3002,
            Disconnect::Silent => 3003,
            Disconnect::TooFast => 3004,
            Disconnect::Stalled => 3005,
            Disconnect::Expired => 3006,
            Disconnect::Ended => 3007,
            Disconnect::Doubtful => 3008,
            Disconnect::Unreadable => 3009,
            Disconnect::Revoked => 3500,
        }
    }

    /// The reason in the close frame: at most 123 bytes (RFC 6455 section 5.5).
    pub fn reason(self) -> &'static str {
        match self {
            Disconnect::BadFrame => "the frame breaks RFC 6455",
            Disconnect::Binary => "send text frames; the protocol is JSON",
            Disconnect::NotUtf8 => "a text frame must be UTF-8",
            Disconnect::Fragments => "the message has more frames than this server accepts",
            Disconnect::TooBig => "the message is longer than this server accepts",
            Disconnect::Internal => "the server failed on this connection; come back",
            Disconnect::Draining => "this node is stopping; come back, another one will answer",
            Disconnect::Slow => "you read too slowly; come back and recover what you missed",
            Disconnect::Silent => "a ping was not answered; come back",
            Disconnect::TooFast => {
                "you send more than your rate allows; come back later and send more slowly"
            }
            Disconnect::Stalled => "a message took too long to arrive; come back and send it again",
            Disconnect::Expired => "your token has expired; come back with a new one",
            Disconnect::Ended => "the operator ended this connection; come back",
            Disconnect::Doubtful => "your token may have been revoked; come back with a new one",
            Disconnect::Unreadable => {
                "this node cannot read a newer message; come back to another node"
            }
            Disconnect::Revoked => "your token was revoked; sign in anew",
        }
    }

    /// Whether the client should reconnect. After a fault of its own program it should not, because
    /// a new connection would only repeat it.
    pub fn invites_return(self) -> bool {
        matches!(self.code(), 1011 | 3000..3500 | 4000..4500)
    }

    /// Whether the frames still queued for the client are discarded, so that the close frame is
    /// next. A slow reader would otherwise receive it only after all frames that it was too slow
    /// for.
    pub fn discards_outbox(self) -> bool {
        matches!(self, Disconnect::Slow)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn close_codes_are_distinct_and_their_ranges_state_whether_to_reconnect() {
        let mut codes: Vec<u16> = Disconnect::ALL.iter().map(|why| why.code()).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), Disconnect::ALL.len());
        assert!(
            codes
                .iter()
                .all(|code| (1002..=1011).contains(code) || (3000..=4999).contains(code))
        );
        assert!(Disconnect::ALL.iter().all(|why| why.reason().len() <= 123));
        let invites = |why: &&Disconnect| why.reason().contains("come back");
        let invited = Disconnect::ALL.iter().filter(|why| why.invites_return());
        assert!(invited.eq(Disconnect::ALL.iter().filter(invites)));
    }
}
