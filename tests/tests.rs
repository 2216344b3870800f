//! Integration tests, one file per behaviour; `tests/README.md` lists them. They are one binary, so
//! that the node is linked once.

mod support;

mod api;
mod architecture;
mod broker;
mod browser;
mod client;
mod client_commands;
mod client_module;
mod cluster;
mod command_line;
mod conformance;
mod dependencies;
mod drain;
mod embedding;
mod handshake;
mod heartbeat;
mod http;
mod isolation;
mod limits;
mod names;
mod nodes;
mod openapi;
mod package;
mod presence;
mod recovery;
mod retention;
mod rights;
mod rooms;
mod run_cluster;
mod slow_session;
mod smuggling;
mod strict_json;
mod survival;
mod tokens;
mod upgrades;
mod users;
mod webhooks;
mod writer;
