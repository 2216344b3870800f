//! The tests of the whole, one file per behaviour; what each is about stands in its first lines. They are one binary, so that
//! the node is linked once.

mod support;

mod command_line;
mod handshake;
mod house;
mod http_door;
mod rooms;
