//! The native protocol: one JSON object per text frame, flat, `type` first; `id` is echoed in the
//! reply. The JSON of clients lives in this module and nowhere else: what they ask is read in
//! [`decode`](mod@decode), what they are told is written in [`encode`].

mod decode;
mod encode;
#[cfg(test)]
mod tests;

pub use decode::{decode, too_deep};
pub use encode::{bare, message, own_message, push, reply};
