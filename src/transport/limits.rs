//! The limits of clients, as plain logic: token buckets, the frames of one message, what one
//! session, user or address may send, and the connections of one address. `docs/limits.md` lists
//! every limit with its option, its answer and its figure.

mod addresses;
mod fragments;
mod ingress;
mod quota;
mod rate;
mod recent_rooms;
mod shared;

pub use addresses::{AddressPermit, Addresses, TooMany};
pub(crate) use fragments::Fragments;
pub use ingress::IngressLimits;
pub(crate) use ingress::{IngressAction, IngressMeter};
pub(crate) use quota::{Charge, Debt, Quota};
pub(crate) use rate::Bucket;
pub use rate::Rate;
pub(crate) use shared::SharedQuota;
pub use shared::{SharedLimits, SharedQuotas};
