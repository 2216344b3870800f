//! The actions that a client may do in a room. A token's grants add to the policy of the room; the
//! rooms of the server (`$nodes`) and of single users (`@ada`) have rules of their own, which no
//! pattern for ordinary rooms changes.

use std::fmt;

use crate::model::id::RoomName;
use crate::model::identity::{Action, Identity};
use crate::model::pattern::Pattern;

/// The actions that a room allows without a grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Every client may do all actions, even without signing in.
    Public,
    /// Every client that has signed in may do all actions.
    Users,
    /// Every client may join, read and see the members; publishing needs a grant.
    ReadOnly,
    /// Clients never publish, even with a grant; the other actions need one.
    Server,
    /// Every action needs a grant.
    Token,
}

impl Policy {
    /// Each with its name in the configuration.
    pub const ALL: [(Policy, &'static str); 5] = [
        (Policy::Public, "public"),
        (Policy::Users, "users"),
        (Policy::ReadOnly, "read-only"),
        (Policy::Server, "server"),
        (Policy::Token, "token"),
    ];

    fn allows(self, action: Action, signed_in: bool) -> bool {
        match self {
            Policy::Public => true,
            Policy::Users => signed_in,
            Policy::ReadOnly => action != Action::Publish,
            Policy::Server | Policy::Token => false,
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = Policy::ALL.iter().find(|(policy, _)| policy == self);
        f.write_str(named.map_or("", |(_, name)| name))
    }
}

/// The policy of some rooms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub rooms: Pattern,
    pub policy: Policy,
}

/// The rules of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rights {
    /// The first that fits a room's name applies.
    pub rules: Vec<Rule>,
    /// Open mode: no token is needed, and none can be verified.
    pub open: bool,
}

/// Why an action is denied; the message states what is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    #[error("sign in first: this room is not for everyone")]
    SignIn,
    #[error("your token does not let you join this room")]
    Join,
    #[error("your token does not let you publish in this room")]
    Publish,
    #[error("your token does not let you read the history of this room")]
    History,
    #[error("your token does not let you see who is in this room")]
    Members,
    #[error("this node has no rule that lets you do that in this room")]
    NoRule,
    #[error("only the server publishes in this room")]
    Server,
    #[error("this room belongs to the nodes; no client may use it")]
    Nodes,
    #[error("this is the personal room of another user; only that user may be in it")]
    Personal,
}

impl Rights {
    /// Open mode without rules: every client may do all actions, under any name.
    pub fn open() -> Self {
        Self {
            rules: Vec::new(),
            open: true,
        }
    }

    /// Whether a client may do this now.
    pub fn check(
        &self,
        who: Option<&Identity>,
        action: Action,
        room: &RoomName,
    ) -> Result<(), Denied> {
        if room.is_the_nodes() {
            return Err(Denied::Nodes);
        }
        let policy = self.policy(room);
        match (room.is_personal(), action) {
            // The author of a direct message must be known, even in open mode.
            (true, Action::Publish) if who.is_none() => return Err(Denied::SignIn),
            (true, Action::Publish) | (false, _) => {}
            (true, _) if who.is_some_and(|who| room.is_of(&who.user)) => return Ok(()),
            (true, _) => return Err(Denied::Personal),
        }
        if action == Action::Publish && (room.is_the_servers() || policy == Policy::Server) {
            return Err(Denied::Server);
        }
        let granted = who.is_some_and(|who| who.grants.allow(action, room));
        if granted || policy.allows(action, who.is_some()) {
            return Ok(());
        }
        Err(match action {
            _ if who.is_none() && (!self.open || policy == Policy::Users) => Denied::SignIn,
            _ if self.open => Denied::NoRule,
            Action::Join => Denied::Join,
            Action::Publish => Denied::Publish,
            Action::History => Denied::History,
            Action::Members => Denied::Members,
        })
    }

    fn policy(&self, room: &RoomName) -> Policy {
        let rule = self.rules.iter().find(|rule| rule.rooms.fits_room(room));
        match rule {
            Some(rule) => rule.policy,
            None if self.open && room.is_of_reports() => Policy::ReadOnly,
            None if self.open && !room.is_the_servers() => Policy::Public,
            None => Policy::Token,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::id::UserName;
    use crate::model::identity::Grants;

    fn rights(open: bool, rules: &[(&str, Policy)]) -> Rights {
        let rule = |(pattern, policy): &(&str, Policy)| Rule {
            rooms: Pattern::new(pattern).unwrap(),
            policy: *policy,
        };
        Rights {
            rules: rules.iter().map(rule).collect(),
            open,
        }
    }

    fn holder(user: &str, patterns: &[&str]) -> Identity {
        let patterns = patterns.iter().map(|text| Pattern::new(text).unwrap());
        let patterns: std::sync::Arc<[Pattern]> = patterns.collect();
        Identity {
            grants: Grants::new([(); 4].map(|()| patterns.clone())),
            ..Identity::unverified(UserName::new(user).unwrap(), None)
        }
    }

    /// What a client may do in a room, as the first letters of the actions: join, publish, history,
    /// members.
    fn may(rights: &Rights, who: Option<&Identity>, room: &str) -> String {
        let room = RoomName::new(room).unwrap();
        let allowed = Action::ALL.iter().zip("jphm".chars());
        let allowed = allowed.filter(|(action, _)| rights.check(who, **action, &room).is_ok());
        allowed.map(|(_, letter)| letter).collect()
    }

    #[test]
    fn policies_and_grants_allow_the_actions_of_the_table() {
        use Policy::*;
        let secured = rights(
            false,
            &[
                ("lobby", Public),
                ("hall.*", Users),
                ("news", ReadOnly),
                ("feed", Server),
                ("*.secret", Token),
                ("*.open", Public),
            ],
        );
        let (plain, all) = (holder("ada", &[]), holder("bob", &["*"]));
        for (room, anonymous, signed_in, granted) in [
            ("lobby", "jphm", "jphm", "jphm"),
            ("hall.1", "", "jphm", "jphm"),
            ("news", "jhm", "jhm", "jphm"),
            ("feed", "", "", "jhm"),
            ("x.secret", "", "", "jphm"),
            ("x.open", "jphm", "jphm", "jphm"),
            ("other", "", "", "jphm"),
            // A star does not match the rooms of the server and of single users.
            ("$nodes", "", "", ""),
            ("@ada", "", "jhm", ""),
            ("@bob", "", "", "jhm"),
        ] {
            assert_eq!(may(&secured, None, room), anonymous, "{room}");
            assert_eq!(may(&secured, Some(&plain), room), signed_in, "{room}");
            assert_eq!(may(&secured, Some(&all), room), granted, "{room}");
        }
    }

    #[test]
    fn rooms_with_a_sign_need_patterns_with_it_and_stay_the_servers_and_the_users() {
        let secured = rights(false, &[]);
        let who = holder("ada", &["$nodes", "@*"]);
        let every = holder("ada", &["$*", "$control", "$control.*"]);
        let rule = [("$*", Policy::Public), ("$control", Policy::Public)];
        for (rights, who) in [(&secured, Some(&every)), (&rights(true, &rule), None)] {
            for room in ["$control", "$control.revoked", "$control.x"] {
                assert_eq!(may(rights, who, room), "", "{room}");
            }
            assert_eq!(may(rights, who, "$controls"), "jhm");
        }
        for (room, expected) in [
            ("$nodes", "jhm"),
            ("$other", ""),
            ("@ada", "jphm"),
            ("@bob", "p"),
        ] {
            assert_eq!(may(&secured, Some(&who), room), expected, "{room}");
        }
        let generous = rights(false, &[("$*", Policy::Public), ("@*", Policy::Public)]);
        let who = holder("ada", &[]);
        for (room, anonymous, signed_in) in [("$nodes", "jhm", "jhm"), ("@bob", "", "p")] {
            assert_eq!(may(&generous, None, room), anonymous, "{room}");
            assert_eq!(may(&generous, Some(&who), room), signed_in, "{room}");
        }
    }

    #[test]
    fn open_mode_allows_all_but_server_rooms_and_rooms_of_other_users() {
        let open = Rights::open();
        let ada = holder("ada", &[]);
        for (room, anonymous, signed_in) in [
            ("lobby", "jphm", "jphm"),
            ("$nodes", "jhm", "jhm"),
            ("$other", "", ""),
            ("@ada", "", "jphm"),
            ("@bob", "", "p"),
        ] {
            assert_eq!(may(&open, None, room), anonymous, "{room}");
            assert_eq!(may(&open, Some(&ada), room), signed_in, "{room}");
        }
        let ruled = rights(true, &[("news", Policy::ReadOnly)]);
        assert_eq!(may(&ruled, Some(&ada), "news"), "jhm");
        let closed = rights(true, &[("$nodes", Policy::Token)]);
        assert_eq!(may(&closed, Some(&ada), "$nodes"), "");
    }

    #[test]
    fn denial_names_what_is_missing() {
        use Action::*;
        let secured = rights(false, &[("feed", Policy::Server)]);
        let ada = holder("ada", &["feed"]);
        for (who, action, room, expected) in [
            (None, Join, "a", Denied::SignIn),
            (Some(&ada), Join, "a", Denied::Join),
            (Some(&ada), Publish, "a", Denied::Publish),
            (Some(&ada), History, "a", Denied::History),
            (Some(&ada), Members, "a", Denied::Members),
            (Some(&ada), Publish, "feed", Denied::Server),
            (Some(&ada), Publish, "$nodes", Denied::Server),
            (Some(&ada), Join, "@bob", Denied::Personal),
            (None, Publish, "@bob", Denied::SignIn),
        ] {
            let room = RoomName::new(room).unwrap();
            assert_eq!(secured.check(who, action, &room), Err(expected), "{room}");
        }
        let other = RoomName::new("$other").unwrap();
        let open = Rights::open();
        assert_eq!(open.check(None, Join, &other), Err(Denied::NoRule));
    }
}
