//! What survives a fault of Redis. Two nodes share a Redis that restarts, returns with an older
//! snapshot, fails over or is emptied; members, history, publish keys, recovery and revocations are
//! checked after each of these faults, in an ordinary and in a personal room.
//!
//! The rule: the fault ends the epoch, the log stays,
//! and the new epoch goes on from the end of what survived.
//!
//! ```text
//!   offset       1     2     3     4     5     6
//!   published    |<----- kept ---->|<- tail ->|   fault    goes on at
//!                                     survives | CleanRestart, Failover           7
//!                                      is lost | OlderSnapshot, CrashFailover     5
//!                everything is lost            | FlushAll                         1
//! ```

mod epochs;
mod faults;
mod history;
mod keys;
mod members;
mod positions;
mod recovery;
mod revocations;
mod stream;
mod world;
