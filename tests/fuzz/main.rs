//! Fuzz targets: on any bytes no parser panics, hangs, or allocates without bound. One file per
//! place that reads untrusted bytes. In `cargo test` each target runs its corpus and a bounded
//! number of mutations, the same each time; `make fuzz` is guided by coverage and runs as long as
//! requested.
//!
//! To add a target: a file with a function of bytes, a line in the list below, and a few inputs in
//! `corpus/NAME`.

mod answers;
mod api;
mod chunks;
mod config;
mod driver;
mod frames;
mod head;
mod names;
mod native;
mod token;
mod wire;

#[path = "../support/bare_node.rs"]
mod bare_node;

#[path = "../support/base64url.rs"]
mod base64url;

driver::targets! {
    // Each with the number of inputs that `cargo test` tries.
    head: head::any_head_in_any_pieces, 20_000;
    chunks: chunks::any_chunks_in_any_pieces, 30_000;
    frames: frames::any_frames_in_any_pieces, 1_500;
    native: native::any_command, 30_000;
    api: api::any_call, 30_000;
    wire: wire::any_payload, 30_000;
    answers: answers::any_answer, 20_000;
    config: config::any_configuration, 1_500;
    names: names::any_name, 30_000;
    token: token::any_token, 20_000;
}
