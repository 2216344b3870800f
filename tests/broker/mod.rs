//! The contract of every broker: the same scenarios on each, through the interface alone. Then
//! tests of the faults that only Redis can have.

/// Each scenario becomes a test of each broker.
macro_rules! over_every_broker {
    ($($scenario:ident),+ $(,)?) => {
        mod over_memory {
            $(#[test] fn $scenario() { super::$scenario(crate::broker::node::World::memory()); })+
        }

        mod over_redis {
            $(#[test] fn $scenario() { super::$scenario(crate::broker::node::World::redis()); })+
        }
    };
}

mod agreement;
mod cluster_queries;
mod cuts;
mod foreign;
mod formats;
mod junk;
mod leases;
mod logs;
mod loss;
mod master;
mod memory;
mod node;
mod parked_reads;
mod presence;
mod presence_table;
mod redis;
mod refill;
mod rejoin;
mod revocations;
mod scenarios;
mod unusable;
mod webhooks;
