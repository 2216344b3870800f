//! The scripts, and how they are called: by the digest under which Redis has learned them, or with
//! their text, by which it learns them. What each promises is written at its head.

use redis::Cmd;

/// A script. Its texts begin with `#!lua` where Redis shall look, before it starts, whether a
/// script that writes may run at all (memory, master, enough replicas).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Script {
    Publish,
    /// Pages can be read when memory is short; only a new epoch is refused then.
    Read,
    Members,
    Count,
    Rooms,
    /// A short memory ends no lease, and taking out makes room.
    Lease,
    SetPresence,
    Reap,
    /// What is done makes room.
    WebhookStream,
    Revoke,
    /// Can be read when memory is short.
    Revocations,
}

/// What the connection for publishes calls.
pub const PUBLISHES: &[Script] = &[
    Script::Publish,
    Script::Lease,
    Script::SetPresence,
    Script::Reap,
    Script::Revoke,
];

/// What the connection for reads calls.
pub const READS: &[Script] = &[
    Script::Read,
    Script::Members,
    Script::Count,
    Script::Rooms,
    Script::Revocations,
];

/// What the connection for webhooks calls.
pub const WEBHOOKS: &[Script] = &[Script::WebhookStream];

impl Script {
    pub fn text(self) -> &'static str {
        match self {
            Script::Publish => concat!(
                "#!lua\n",
                include_str!("room.lua"),
                include_str!("publish.lua")
            ),
            Script::Read => concat!(include_str!("room.lua"), include_str!("read.lua")),
            Script::Members => concat!(include_str!("parts.lua"), include_str!("members.lua")),
            Script::Count => concat!(
                include_str!("parts.lua"),
                include_str!("census.lua"),
                include_str!("count.lua")
            ),
            Script::Rooms => concat!(
                include_str!("parts.lua"),
                include_str!("census.lua"),
                include_str!("rooms.lua")
            ),
            Script::Lease => concat!("#!lua flags=allow-oom\n", include_str!("lease.lua")),
            Script::SetPresence => concat!(
                "#!lua\n",
                include_str!("parts.lua"),
                include_str!("notice.lua"),
                include_str!("change.lua"),
                include_str!("here.lua")
            ),
            Script::Reap => concat!(
                "#!lua flags=allow-oom\n",
                include_str!("parts.lua"),
                include_str!("notice.lua"),
                include_str!("change.lua"),
                include_str!("reap.lua")
            ),
            Script::Revoke => concat!(
                "#!lua\n",
                include_str!("revoked.lua"),
                include_str!("revoke.lua")
            ),
            Script::Revocations => {
                concat!(include_str!("revoked.lua"), include_str!("revocations.lua"))
            }
            Script::WebhookStream => concat!("#!lua flags=allow-oom\n", include_str!("hooks.lua")),
        }
    }
}

/// The digests under which a server has learned its scripts.
#[derive(Clone, Debug, Default)]
pub struct Learned(Vec<(Script, String)>);

impl Learned {
    pub fn add(&mut self, script: Script, digest: String) {
        self.0.push((script, digest));
    }
}

/// Calls scripts on one connection.
#[derive(Debug, Default)]
pub struct ScriptCaller {
    learned: Learned,
    /// The server has forgotten these: the next call brings the text.
    forgotten: Vec<Script>,
}

impl ScriptCaller {
    /// For a new connection.
    pub fn new(learned: Learned) -> Self {
        Self {
            learned,
            forgotten: Vec::new(),
        }
    }

    /// The server has forgotten its scripts.
    pub fn teach(&mut self) {
        self.forgotten = self.learned.0.iter().map(|(script, _)| *script).collect();
    }

    /// The beginning of a call; keys and arguments follow.
    pub fn call(&mut self, script: Script) -> Cmd {
        let mut command = Cmd::new();
        let forgotten = self.forgotten.iter().position(|it| *it == script);
        let digest = self.learned.0.iter().find(|(it, _)| *it == script);
        match (forgotten, digest) {
            (None, Some((_, digest))) => command.arg("EVALSHA").arg(digest),
            (forgotten, _) => {
                if let Some(at) = forgotten {
                    self.forgotten.swap_remove(at);
                }
                command.arg("EVAL").arg(script.text())
            }
        };
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_by_digest(caller: &mut ScriptCaller, script: Script) -> bool {
        let packed = caller.call(script).get_packed_command();
        !packed.windows(6).any(|part| part == b"EVAL\r\n")
    }

    #[test]
    fn a_forgotten_script_is_sent_with_its_text_once() {
        let mut learned = Learned::default();
        learned.add(Script::Read, "d".into());
        learned.add(Script::Members, "e".into());
        let mut caller = ScriptCaller::new(learned);
        assert!(is_by_digest(&mut caller, Script::Read));
        assert!(
            !is_by_digest(&mut caller, Script::Publish),
            "never learned here"
        );
        caller.teach();
        for script in [Script::Read, Script::Members] {
            assert!(!is_by_digest(&mut caller, script));
            assert!(is_by_digest(&mut caller, script));
        }
    }
}
