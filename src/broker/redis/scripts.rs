//! The scripts, and how they are called: by the SHA1 digest of the text (`EVALSHA`), or with the
//! text itself (`EVAL`) if Redis has lost it. Each connection loads its scripts first. The head of
//! each script documents its keys, arguments and answer.

use std::fmt::Write as _;
use std::time::Duration;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use redis::Cmd;

/// A script. The text begins with `#!lua` if Redis must check, before it runs the script, that
/// writes are possible (memory, master, enough replicas).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Script {
    Publish,
    /// Has no `#!lua`: pages can be read when memory is short; only a new epoch is refused then.
    Read,
    Members,
    Count,
    Rooms,
    /// Runs when memory is short, so that no lease ends then and reaping frees memory.
    Lease,
    /// Runs when memory is short, as do the next two: what presence takes is bounded by the open
    /// connections, and members that leave must disappear.
    LeaseRooms,
    SetPresence,
    Reap,
    /// Runs when memory is short, because it deletes delivered events.
    WebhookStream,
    /// Runs when memory is short: the set is bounded, and a revoked token must not stay valid.
    Revoke,
    /// Has no `#!lua`: can be read when memory is short.
    Revocations,
}

/// The scripts of the connection for publishes, and for the node's presence.
pub(super) const PUBLISHES: &[Script] = &[
    Script::Publish,
    Script::Lease,
    Script::LeaseRooms,
    Script::SetPresence,
    Script::Reap,
    Script::Revoke,
];

/// The scripts of the connection for reads.
pub(super) const READS: &[Script] = &[
    Script::Read,
    Script::Members,
    Script::Count,
    Script::Rooms,
    Script::Revocations,
];

/// The scripts of the connection for webhooks.
pub(super) const WEBHOOKS: &[Script] = &[Script::WebhookStream];

impl Script {
    pub(super) const ALL: [Script; 12] = [
        Script::Publish,
        Script::Read,
        Script::Members,
        Script::Count,
        Script::Rooms,
        Script::Lease,
        Script::LeaseRooms,
        Script::SetPresence,
        Script::Reap,
        Script::WebhookStream,
        Script::Revoke,
        Script::Revocations,
    ];

    pub(super) fn text(self) -> &'static str {
        match self {
            Script::Publish => concat!(
                "#!lua\n",
                include_str!("server.lua"),
                include_str!("room.lua"),
                include_str!("publish.lua")
            ),
            Script::Read => concat!(
                include_str!("server.lua"),
                include_str!("room.lua"),
                include_str!("read.lua")
            ),
            Script::Members => concat!(
                include_str!("server.lua"),
                include_str!("presence_parts.lua"),
                include_str!("presence_heal.lua"),
                include_str!("members.lua")
            ),
            Script::Count => concat!(
                include_str!("server.lua"),
                include_str!("presence_parts.lua"),
                include_str!("count_members.lua"),
                include_str!("room_count.lua")
            ),
            Script::Rooms => concat!(
                include_str!("server.lua"),
                include_str!("presence_parts.lua"),
                include_str!("count_members.lua"),
                include_str!("presence_heal.lua"),
                include_str!("occupied_rooms.lua")
            ),
            Script::Lease => concat!(
                "#!lua flags=allow-oom\n",
                include_str!("server.lua"),
                include_str!("lease.lua")
            ),
            Script::LeaseRooms => concat!(
                "#!lua flags=allow-oom\n",
                include_str!("server.lua"),
                include_str!("presence_heal.lua"),
                include_str!("lease_rooms.lua")
            ),
            Script::SetPresence => concat!(
                "#!lua flags=allow-oom\n",
                include_str!("server.lua"),
                include_str!("presence_parts.lua"),
                include_str!("presence_heal.lua"),
                include_str!("webhook_event.lua"),
                include_str!("presence_write.lua"),
                include_str!("set_presence.lua")
            ),
            Script::Reap => concat!(
                "#!lua flags=allow-oom\n",
                include_str!("server.lua"),
                include_str!("presence_parts.lua"),
                include_str!("presence_heal.lua"),
                include_str!("webhook_event.lua"),
                include_str!("presence_write.lua"),
                include_str!("reap.lua")
            ),
            Script::Revoke => concat!(
                "#!lua flags=allow-oom\n",
                include_str!("server.lua"),
                include_str!("revocation_set.lua"),
                include_str!("revoke.lua")
            ),
            Script::Revocations => concat!(
                include_str!("server.lua"),
                include_str!("revocation_set.lua"),
                include_str!("revocations.lua")
            ),
            Script::WebhookStream => concat!(
                "#!lua flags=allow-oom\n",
                include_str!("server.lua"),
                include_str!("webhook_queue.lua")
            ),
        }
    }
}

/// Calls the scripts of one pipeline.
#[derive(Debug)]
pub(super) struct ScriptCaller {
    /// By `Script as usize`.
    digests: [String; Script::ALL.len()],
    /// The next call of these sends the text.
    missing: Vec<Script>,
}

impl Default for ScriptCaller {
    fn default() -> Self {
        Self {
            digests: Script::ALL.map(|script| sha1(script.text())),
            missing: Vec::new(),
        }
    }
}

impl ScriptCaller {
    /// The server does not have a script that was called. It was restarted, replaced by a replica
    /// or flushed, so it has none of the others either.
    pub(super) fn reload(&mut self) {
        self.missing = Script::ALL.to_vec();
    }

    /// Begins a call; the caller appends keys and arguments.
    pub(super) fn call(&mut self, script: Script) -> Cmd {
        let mut command = Cmd::new();
        match self.missing.iter().position(|it| *it == script) {
            Some(at) => {
                self.missing.swap_remove(at);
                command.arg("EVAL").arg(script.text())
            }
            None => command.arg("EVALSHA").arg(&self.digests[script as usize]),
        };
        command
    }
}

/// The digest of a text as Redis names it: SHA1, in hexadecimal.
fn sha1(text: &str) -> String {
    let mut name = String::with_capacity(40);
    for byte in digest(&SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes()).as_ref() {
        // Writing into a String cannot fail.
        let _ = write!(name, "{byte:02x}");
    }
    name
}

/// A duration as an argument of a script. At least 1: Redis would take zero as "at once", or refuse
/// it.
pub(super) fn millis(time: Duration) -> u64 {
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
    fn digest_is_the_one_that_redis_computes() {
        // SCRIPT LOAD "return 1"
        assert_eq!(sha1("return 1"), "e0e1f9fabfc9d4800c877a703b823ac0578ff8db");
        for script in Script::ALL {
            let by_index = &ScriptCaller::default().digests[script as usize];
            assert_eq!(*by_index, sha1(script.text()), "{script:?}");
        }
    }

    #[test]
    fn missing_script_is_sent_with_its_text_once() {
        let mut caller = ScriptCaller::default();
        assert!(is_by_digest(&mut caller, Script::Publish));
        caller.reload();
        for script in Script::ALL {
            assert!(!is_by_digest(&mut caller, script));
            assert!(is_by_digest(&mut caller, script));
        }
    }
}
