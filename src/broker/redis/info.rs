//! What a server reports of itself by `INFO SECTION`: lines of `FIELD:VALUE`.

use redis::Cmd;
use redis::aio::MultiplexedConnection;

/// Reads a section of INFO.
pub(super) async fn read_info(
    connection: &mut MultiplexedConnection,
    section: &str,
) -> redis::RedisResult<String> {
    let mut info = Cmd::new();
    info.arg("INFO").arg(section);
    info.query_async(connection).await
}

/// The value of a field of INFO; empty if it is missing.
pub(super) fn field<'a>(info: &'a str, name: &str) -> &'a str {
    info.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .unwrap_or_default()
}
