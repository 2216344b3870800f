//! Checks that this node may do in Redis what it must, before it is ready: the commands, keys and
//! topics that it needs, and what Redis does when its memory is full. The results are sentences for
//! the log and `/readyz`.

use redis::aio::MultiplexedConnection;
use redis::{Cmd, RedisError, RedisResult};

use super::info::{field, read_info};
use super::names::Names;
use crate::model::cluster_query::RoomKind;
use crate::model::id::{Incarnation, RoomName};

/// Runs when memory is short, so that a full Redis keeps no node out.
const SCRIPT: &str = concat!("#!lua flags=allow-oom\n", include_str!("self_check.lua"));

/// Redis refuses it exactly when it refuses `publish.lua` before its first line.
const WRITE: &str = "#!lua\nreturn 1";

/// Where operators find what the Redis user needs.
const ACL: &str = "docs/operations.md has the ACL line";

/// The kinds of rooms, each with a key of its own.
const KINDS: [RoomKind; 3] = [RoomKind::Chosen, RoomKind::Personal, RoomKind::Server];

/// See the head of this file.
#[derive(Debug)]
pub(super) struct SelfCheck {
    names: Names,
    run: Incarnation,
    /// `--allow-eviction`.
    allow_eviction: bool,
}

/// What Redis does when its memory is full.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct MemoryState {
    /// It may evict keys: an operator must change something.
    pub eviction: Option<String>,
    /// It refuses writes at the moment: what does not work.
    pub limitation: Option<String>,
}

impl SelfCheck {
    pub(super) fn new(names: Names, run: Incarnation, allow_eviction: bool) -> Self {
        Self {
            names,
            run,
            allow_eviction,
        }
    }

    /// A topic on which nothing is published, and which a subscription tries out.
    pub(super) fn topic(&self) -> String {
        format!("{}:self-check", self.names.node_topic(self.run))
    }

    /// What the node may not do; `None`: it may do all that it needs, or Redis refuses writes.
    ///
    /// # Errors
    /// Of the connection, or a refusal that has nothing to do with permissions.
    pub(super) async fn permissions(
        &self,
        connection: &mut MultiplexedConnection,
    ) -> RedisResult<Option<String>> {
        match self.try_all(connection).await {
            Ok(failed) => Ok(self.sentence(&failed)),
            Err(error) if limitation(&error).is_some() => Ok(None),
            Err(error) => match Denied::of(error.detail().unwrap_or_default()) {
                Some(Denied::Key | Denied::Topic) => {
                    let detail = error.detail().unwrap_or_default().to_owned();
                    Ok(self.sentence(&[(String::new(), detail)]))
                }
                _ => refusal(&error).map(Some).ok_or(error),
            },
        }
    }

    /// What failed, and the error.
    async fn try_all(
        &self,
        connection: &mut MultiplexedConnection,
    ) -> RedisResult<Vec<(String, String)>> {
        let mut load = Cmd::new();
        load.arg("SCRIPT").arg("LOAD").arg(SCRIPT);
        let digest: String = load.query_async(connection).await?;
        let failed = self.call(&digest).query_async(connection).await?;
        let mut publish = Cmd::new();
        publish.arg("PUBLISH").arg(self.topic()).arg("");
        let _receivers: u64 = publish.query_async(connection).await?;
        Ok(failed)
    }

    /// The call of `self_check.lua`.
    fn call(&self, digest: &str) -> Cmd {
        // No client can use a room whose name begins so.
        let room = RoomName::new(&format!("$self-check.{}", self.run));
        let names = &self.names;
        let mut keys: Vec<String> = Vec::new();
        let mut topics = vec![self.topic()];
        if let Ok(room) = &room {
            let [here, list] = names.here(room);
            keys.extend([names.log(room), names.meta(room), list, here]);
            keys.push(names.live(room));
            topics.push(names.topic(room));
        }
        keys.extend([names.nodes(), names.formats(), names.rooms("self-check")]);
        keys.extend(KINDS.map(|kind| names.occupied(kind)));
        keys.extend(names.hooks());
        keys.extend(names.revoked());
        let mut call = Cmd::new();
        call.arg("EVALSHA").arg(digest).arg(keys.len());
        call.arg(keys).arg(topics);
        call
    }

    fn sentence(&self, failed: &[(String, String)]) -> Option<String> {
        let mut lacks: Vec<String> = Vec::new();
        for (what, error) in failed {
            let lack = match Denied::of(error) {
                None => continue,
                Some(Denied::Command) => format!("the command {}", what.to_lowercase()),
                Some(Denied::Key) => format!("keys: {}", self.names.key_pattern()),
                Some(Denied::Topic) => format!("channels: {}", self.names.topic_pattern()),
            };
            if !lacks.contains(&lack) {
                lacks.push(lack);
            }
        }
        let lacks = (!lacks.is_empty()).then(|| lacks.join(", "))?;
        Some(format!("Redis does not let this node use {lacks}; {ACL}"))
    }

    /// Reads what Redis does when its memory is full, and whether it takes writes now.
    ///
    /// # Errors
    /// Of the connection, or a refusal.
    pub(super) async fn memory(
        &self,
        connection: &mut MultiplexedConnection,
    ) -> RedisResult<MemoryState> {
        let info = read_info(connection, "memory").await?;
        let mut write = Cmd::new();
        write.arg("EVAL").arg(WRITE).arg(0);
        let limitation = match write.query_async::<u64>(connection).await {
            Ok(_) => None,
            Err(error) => Some(limitation(&error).ok_or(error)?),
        };
        Ok(MemoryState {
            eviction: self.eviction(&info),
            limitation: limitation.map(str::to_owned),
        })
    }

    /// A Redis that evicts keys also evicts rooms' positions and members.
    fn eviction(&self, info: &str) -> Option<String> {
        let (limit, policy) = (field(info, "maxmemory"), field(info, "maxmemory_policy"));
        let never = ["", "0"].contains(&limit) || ["", "noeviction"].contains(&policy);
        (!never && !self.allow_eviction).then(|| {
            format!(
                "Redis may evict rooms when its memory is full: its maxmemory-policy is {policy}; \
                 set it to noeviction, or start this node with --allow-eviction"
            )
        })
    }
}

/// What Redis does not take while it refuses writes.
fn limitation(error: &RedisError) -> Option<&'static str> {
    match error.code()? {
        "OOM" => Some(
            "Redis is full (OOM): publishes and joins of new rooms are refused; raise its \
             maxmemory, or keep less with --history-size and --history-age",
        ),
        "MISCONF" => Some(
            "Redis cannot write to its disk (MISCONF): publishes and joins of new rooms are \
             refused",
        ),
        "NOREPLICAS" => Some(
            "Redis has too few replicas (NOREPLICAS): publishes and joins of new rooms are refused",
        ),
        _ => None,
    }
}

/// What a permission is lacking for.
#[derive(Debug, PartialEq, Eq)]
enum Denied {
    Command,
    Key,
    Topic,
}

impl Denied {
    /// Reads an error of a command or within a script. The texts are those of Redis 7.0 to 8 and
    /// Valkey.
    fn of(error: &str) -> Option<Self> {
        let has = |texts: &[&str]| texts.iter().any(|text| error.contains(text));
        if has(&[
            "publish to the channel",
            "of the channels",
            "access a channel",
        ]) {
            Some(Denied::Topic)
        } else if has(&["of the keys", "access a key"]) {
            Some(Denied::Key)
        } else if has(&[
            "can't run this command",
            "no permissions to run",
            "Unknown Redis command",
            "unknown command",
            "not allowed from script",
        ]) {
            Some(Denied::Command)
        } else {
            None
        }
    }
}

/// What an operator must change, if that is why Redis refuses a command; else waiting may help.
pub(super) fn refusal(error: &RedisError) -> Option<String> {
    let code = error.code().unwrap_or_default();
    let detail = error.detail().unwrap_or_default();
    match code {
        "NOAUTH" | "WRONGPASS" => Some(format!(
            "Redis refuses the user or the password: {code} {detail}"
        )),
        "NOPERM" => Some(format!(
            "the Redis user lacks a permission: {detail}; {ACL}"
        )),
        _ if Denied::of(detail) == Some(Denied::Command) => {
            Some(format!("Redis lacks a command: {detail}"))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::scripts::Script;
    use super::*;

    /// The commands that a script calls: words in capitals behind a parenthesis, or in the choice
    /// between two.
    fn commands(script: &str) -> BTreeSet<&str> {
        let parts: Vec<&str> = script.split('\'').collect();
        let quoted = parts.windows(2).step_by(2);
        let quoted = quoted.filter(|pair| {
            let before = pair[0].trim_end();
            before.ends_with('(') || before.ends_with(" and") || before.ends_with(" or")
        });
        let names = quoted.map(|pair| pair[1]);
        names
            .filter(|name| name.len() > 2 && name.bytes().all(|byte| byte.is_ascii_uppercase()))
            .collect()
    }

    #[test]
    fn self_check_tries_every_command_that_the_scripts_call() {
        let tried = commands(SCRIPT);
        for script in Script::ALL {
            let code: String = (script.text().lines())
                .filter(|line| !line.trim_start().starts_with("--"))
                .flat_map(|line| [line, "\n"])
                .collect();
            let called = commands(&code);
            assert!(!called.is_empty(), "{script:?}");
            for command in called {
                let is_tried = tried.contains(command)
                    || SCRIPT.contains(&format!("try('{command}|"))
                    || SCRIPT.contains(&format!("'{command}', '{command}'"));
                assert!(
                    is_tried,
                    "self_check.lua does not try {command} of {script:?}"
                );
            }
            for container in ["XGROUP", "XINFO"] {
                for (at, _) in code.match_indices(&format!("'{container}', '")) {
                    let words: Vec<&str> = code[at..].splitn(5, '\'').collect();
                    let call = format!("'{container}', '{}'", words[3]);
                    assert!(SCRIPT.contains(&call), "self_check.lua does not try {call}");
                }
            }
        }
    }

    #[test]
    fn self_check_tries_the_commands_of_presence_outside_scripts() {
        let quoted = include_str!("presence/commands.rs")
            .split('"')
            .skip(1)
            .step_by(2);
        let is_command =
            |word: &&str| word.len() > 2 && word.bytes().all(|byte| byte.is_ascii_uppercase());
        let commands: BTreeSet<&str> = quoted.filter(is_command).collect();
        assert!(commands.contains("ZRANDMEMBER"), "{commands:?}");
        for command in commands {
            assert!(SCRIPT.contains(&format!("try('{command}'")), "{command}");
        }
    }

    #[test]
    fn redis_with_a_limit_evicts_unless_its_policy_forbids_it() {
        let check = |allow| SelfCheck::new(Names::new("sb", 0), Incarnation(1), allow);
        let info = |limit: &str, policy: &str| {
            format!("maxmemory:{limit}\r\nmaxmemory_policy:{policy}\r\n")
        };
        for (limit, policy, evicts) in [
            ("0", "allkeys-lru", false),
            ("1048576", "noeviction", false),
            ("1048576", "allkeys-lru", true),
            ("1048576", "volatile-ttl", true),
        ] {
            let info = info(limit, policy);
            assert_eq!(check(false).eviction(&info).is_some(), evicts, "{info}");
            assert_eq!(check(true).eviction(&info), None, "{info}");
        }
    }

    #[test]
    fn errors_of_each_version_name_what_is_denied() {
        for (error, denied) in [
            (
                "ERR The user executing the script can't run this command or subcommand",
                Some(Denied::Command),
            ),
            (
                "ERR ACL failure in script: User a has no permissions to run the 'set' command",
                Some(Denied::Command),
            ),
            (
                "ERR Unknown Redis command called from script",
                Some(Denied::Command),
            ),
            (
                "ERR The user executing the script can't access at least one of the keys mentioned \
                 in the command arguments",
                Some(Denied::Key),
            ),
            (
                "ERR ACL failure in script: No permissions to access a key",
                Some(Denied::Key),
            ),
            (
                "ERR The user executing the script can't publish to the channel mentioned in the \
                 command",
                Some(Denied::Topic),
            ),
            (
                "ERR ACL failure in script: No permissions to access a channel",
                Some(Denied::Topic),
            ),
            (
                "OOM command not allowed when used memory > 'maxmemory'.",
                None,
            ),
        ] {
            assert_eq!(Denied::of(error), denied, "{error}");
        }
    }
}
