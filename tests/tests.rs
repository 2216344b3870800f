//! The tests of the whole, one file per behaviour; what each is about stands in its first lines. They are one binary, so that
//! the node is linked once.

mod support;

mod broker;
mod browser;
mod cluster;
mod command_line;
mod drain;
mod handshake;
mod heartbeat;
mod house;
mod http_door;
mod presence;
mod recovery;
mod rooms;
mod run_cluster;
mod slow_session;
mod webhooks;
