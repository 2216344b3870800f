//! What an operator must change before this node can use its Redis, in sentences for the log and
//! `/readyz`.

use redis::RedisError;

/// What a refusal of the connection's preparation means; `None` if waiting may help.
pub(super) fn refusal(error: &RedisError) -> Option<String> {
    let code = error.code().unwrap_or_default();
    let detail = error.detail().unwrap_or_default();
    match code {
        "NOAUTH" | "WRONGPASS" => Some(format!(
            "Redis refuses the user or the password: {code} {detail}"
        )),
        "NOPERM" => Some(format!("the Redis user lacks a permission: {detail}")),
        "ERR" if detail.contains("unknown command") => {
            Some(format!("Redis lacks a command: {detail}"))
        }
        _ => None,
    }
}
