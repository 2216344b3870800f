//! What every broker promises: the same scenarios over each of them, through the seam alone; then what only Redis can
//! do to us.

mod cuts;
mod here;
mod leases;
mod logs;
mod loss;
mod master;
mod node;
mod presence;
mod redis;
mod refill;
mod scenarios;
mod webhooks;
