//! The whole of it, with real processes: two nodes that share a Redis, and nginx before them. In
//! `talk` all is well, in `faults` parts are killed, cut off, frozen and restarted under the
//! clients, and `proxy` is about what nginx and the nodes know of each other's clients.

mod faults;
mod proxy;
mod talk;
