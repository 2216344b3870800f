//! Presence in Redis, apart from the log and the topics of rooms: the lists of members, the leases
//! of nodes, and the queries over both.
//!
//! # The contract
//!
//! - It submits [`PresenceCommand`](agent::PresenceCommand)s to a pipeline, one batch at a time,
//!   and receives a [`PresenceReply`](agent::PresenceReply) to each, also when the connection is
//!   lost. It repeats what was not done; each command is idempotent.
//! - It uses keys of its own (`here`, `names`, `live`, `nodes`, the lists of occupied rooms), so
//!   another store could have them. It publishes changes on the topics of rooms, and uses the
//!   changes that the subscription receives to detect a loss: these two are all that it shares with
//!   the log.
//! - While its lists are known to be incomplete (`synced`), the pipeline parks reads of them, and
//!   they alone wait.
//!
//! `agent` joins `lease` (how long this node's members are valid), `reconciler` (what the store
//! must have of this node) and `reaper` (what dead nodes left). `commands` and `replies`,
//! `member_pages` and `cluster_queries` encode and decode.

pub(super) mod agent;
pub(super) mod cluster_queries;
pub(super) mod commands;
pub(super) mod lease;
pub(super) mod member_pages;
pub(super) mod reaper;
pub(super) mod reconciler;
pub(super) mod replies;
pub(super) mod synced;
