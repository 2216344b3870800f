//! A whole cluster of real processes: two nodes that share a Redis, and nginx in front. In `talk`
//! nothing fails; in `faults` parts are killed, cut off, frozen and restarted; `proxy` tests the
//! client addresses and origins that nginx forwards.

mod faults;
mod proxy;
mod talk;
