//! The scripts, and how they are called: by the digest of a loaded script, or with the text, which
//! loads it. The head of each script documents its keys, arguments and answer.

use std::time::Duration;

use redis::Cmd;

/// A script. The text begins with `#!lua` if Redis must check, before it runs the script, that
/// writes are possible (memory, master, enough replicas).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Script {
    Publish,
    /// Has no `#!lua`: pages can be read when memory is short; only a new epoch is refused then.
    Read,
    Members,
    Count,
    Rooms,
    /// Runs when memory is short, so that no lease ends then and reaping frees memory.
    Lease,
    SetPresence,
    Reap,
    /// Runs when memory is short, because it deletes delivered events.
    WebhookStream,
    Revoke,
    /// Has no `#!lua`: can be read when memory is short.
    Revocations,
}

/// The scripts of the connection for publishes.
pub const PUBLISHES: &[Script] = &[
    Script::Publish,
    Script::Lease,
    Script::SetPresence,
    Script::Reap,
    Script::Revoke,
];

/// The scripts of the connection for reads.
pub const READS: &[Script] = &[
    Script::Read,
    Script::Members,
    Script::Count,
    Script::Rooms,
    Script::Revocations,
];

/// The scripts of the connection for webhooks.
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
            Script::Members => concat!(
                include_str!("presence_parts.lua"),
                include_str!("members.lua")
            ),
            Script::Count => concat!(
                include_str!("presence_parts.lua"),
                include_str!("count_members.lua"),
                include_str!("room_count.lua")
            ),
            Script::Rooms => concat!(
                include_str!("presence_parts.lua"),
                include_str!("count_members.lua"),
                include_str!("occupied_rooms.lua")
            ),
            Script::Lease => concat!("#!lua flags=allow-oom\n", include_str!("lease.lua")),
            Script::SetPresence => concat!(
                "#!lua\n",
                include_str!("presence_parts.lua"),
                include_str!("webhook_event.lua"),
                include_str!("presence_write.lua"),
                include_str!("set_presence.lua")
            ),
            Script::Reap => concat!(
                "#!lua flags=allow-oom\n",
                include_str!("presence_parts.lua"),
                include_str!("webhook_event.lua"),
                include_str!("presence_write.lua"),
                include_str!("reap.lua")
            ),
            Script::Revoke => concat!(
                "#!lua\n",
                include_str!("revocation_set.lua"),
                include_str!("revoke.lua")
            ),
            Script::Revocations => {
                concat!(
                    include_str!("revocation_set.lua"),
                    include_str!("revocations.lua")
                )
            }
            Script::WebhookStream => {
                concat!("#!lua flags=allow-oom\n", include_str!("webhook_queue.lua"))
            }
        }
    }
}

/// The digests of the scripts that a server has loaded.
#[derive(Clone, Debug, Default)]
pub struct LoadedScripts(Vec<(Script, String)>);

impl LoadedScripts {
    pub fn add(&mut self, script: Script, digest: String) {
        self.0.push((script, digest));
    }
}

/// Calls scripts on one connection.
#[derive(Debug, Default)]
pub struct ScriptCaller {
    loaded: LoadedScripts,
    /// The server has unloaded these: the next call sends the text.
    unloaded: Vec<Script>,
}

impl ScriptCaller {
    /// For a new connection.
    pub fn new(loaded: LoadedScripts) -> Self {
        Self {
            loaded,
            unloaded: Vec::new(),
        }
    }

    /// The server has unloaded its scripts.
    pub fn reload(&mut self) {
        self.unloaded = self.loaded.0.iter().map(|(script, _)| *script).collect();
    }

    /// Begins a call; the caller appends keys and arguments.
    pub fn call(&mut self, script: Script) -> Cmd {
        let mut command = Cmd::new();
        let unloaded = self.unloaded.iter().position(|it| *it == script);
        let digest = self.loaded.0.iter().find(|(it, _)| *it == script);
        match (unloaded, digest) {
            (None, Some((_, digest))) => command.arg("EVALSHA").arg(digest),
            (unloaded, _) => {
                if let Some(at) = unloaded {
                    self.unloaded.swap_remove(at);
                }
                command.arg("EVAL").arg(script.text())
            }
        };
        command
    }
}

/// A duration as an argument of a script. At least 1: Redis would take zero as "at once", or refuse
/// it.
pub fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_by_digest(caller: &mut ScriptCaller, script: Script) -> bool {
        let packed = caller.call(script).get_packed_command();
        !packed.windows(6).any(|part| part == b"EVAL\r\n")
    }

    #[test]
    fn unloaded_script_is_sent_with_its_text_once() {
        let mut loaded = LoadedScripts::default();
        loaded.add(Script::Read, "d".into());
        loaded.add(Script::Members, "e".into());
        let mut caller = ScriptCaller::new(loaded);
        assert!(is_by_digest(&mut caller, Script::Read));
        assert!(
            !is_by_digest(&mut caller, Script::Publish),
            "never loaded here"
        );
        caller.reload();
        for script in [Script::Read, Script::Members] {
            assert!(!is_by_digest(&mut caller, script));
            assert!(is_by_digest(&mut caller, script));
        }
    }
}
