//! The domain types that all other modules share, and the rules that need no I/O: names, positions,
//! publications, members, rights, and retention.

pub mod cluster_query;
pub mod control;
pub mod epochs;
pub mod fair_queue;
pub mod history;
pub mod id;
pub mod identity;
pub mod json_text;
pub mod member;
pub mod pattern;
pub mod percent;
pub mod publication;
pub mod readiness;
pub mod retention;
pub mod revocations;
pub mod rights;
pub mod room_event;
pub mod secret;
pub mod source;
pub mod webhook_event;
pub mod wire_format;
