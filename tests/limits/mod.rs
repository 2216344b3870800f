//! Every limit at its bound and over it: rates of a session, messages, connections of an address;
//! and that `docs/limits.md` matches the code. `isolation` tests that a client over its limits does
//! not delay others.

mod addresses;
mod documented;
mod messages;
mod rates;
mod rooms;
mod shared;
