//! Reads the parts of answers as scripts write them.

use redis::Value;

use crate::broker::redis::wire;

/// Reads a whole number as a script writes it.
pub(super) fn read_offset(value: &Value) -> Option<u64> {
    wire::decode_offset(bytes(value)?)
}

/// Reads a text.
pub(super) fn bytes(value: &Value) -> Option<&[u8]> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        Value::SimpleString(text) => Some(text.as_bytes()),
        _ => None,
    }
}
