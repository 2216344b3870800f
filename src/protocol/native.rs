//! The native protocol: one JSON object per text frame, flat, `type` first; `id` is echoed in the
//! reply. This module is the only place that names its JSON fields: [`decode`](mod@decode)
//! reads commands, [`encode`] writes replies, pushes and messages.

mod decode;
mod encode;
#[cfg(test)]
mod tests;

pub use decode::{NativeDecoder, decode};
pub use encode::{NativeEncoder, bare};
