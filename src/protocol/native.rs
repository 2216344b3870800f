//! The native protocol: one JSON object per text frame, flat, `type` first; `id` is echoed in the
//! reply. [`decode`](mod@decode) reads commands, [`encode`] writes replies, pushes and messages;
//! [`receive`] is the client's side. The fields of replies are in [`json`](crate::protocol::json),
//! for the HTTP API has them too.

mod decode;
mod encode;
pub(crate) mod receive;
#[cfg(test)]
mod tests;

pub use decode::decode;

pub(crate) use decode::NativeDecoder;
pub use encode::NativeEncoder;
