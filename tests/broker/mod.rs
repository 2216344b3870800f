//! What every broker promises: the same scenarios over each of them, through the seam alone; then what only Redis can
//! do to us.

mod census;
mod cuts;
mod herd;
mod here;
mod junk;
mod leases;
mod logs;
mod loss;
mod master;
mod memory;
mod node;
mod presence;
mod redis;
mod refill;
mod scenarios;
mod webhooks;
