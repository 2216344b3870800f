//! Switchboard (the map is written when the house stands).

#![forbid(unsafe_code)]

pub mod broker;
pub mod config;
pub mod connection;
pub mod disconnect;
pub mod dispatcher;
pub mod handshake;
pub mod history;
pub mod http;
pub mod id;
pub mod logger;
pub mod metrics;
pub mod pages;
pub mod protocol;
pub mod publication;
pub mod readiness;
pub mod rooms;
pub mod runtime;
pub mod server;
pub mod session;
pub mod shutdown;
pub mod track;
