//! The script by which a node publishes, for those who call it without a node: as the source has
//! it, and its arguments.

/// The same text as the node's.
pub const TEXT: &str = concat!(
    "#!lua\n",
    include_str!("../../src/broker/redis/server.lua"),
    include_str!("../../src/broker/redis/room.lua"),
    include_str!("../../src/broker/redis/publish.lua")
);

/// How many messages a log keeps, as by default.
pub const KEPT: &str = "1000";

/// The log and the standing of a room, which share a slot of Redis' cluster.
pub fn keys(room: &str) -> [String; 2] {
    ["log", "meta"].map(|kind| format!("b:{{{room}}}:{kind}"))
}

/// The arguments of a call that appends to a log and publishes to a topic.
pub fn call<'a>(
    digest: &'a str,
    keys: &'a [String; 2],
    topic: &'a str,
    body: &'a str,
) -> [&'a str; 12] {
    let [log, meta] = keys;
    let epoch = "0123456789abcdef";
    let [log_ttl, meta_ttl, key_ttl] = ["300000", "2592000000", "300000"];
    [
        "EVALSHA", digest, "2", log, meta, topic, body, epoch, KEPT, log_ttl, meta_ttl, key_ttl,
    ]
}
