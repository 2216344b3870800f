//! Connections by client address. An IPv6 address counts by its /64, which is what one subscriber
//! gets; a table holds no address without a connection, so it is never larger than the number of
//! connections.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Counts the connections of each address, up to a bound; a cheap handle of one table.
#[derive(Clone, Debug)]
pub struct Addresses(Arc<AddressTable>);

#[derive(Debug)]
struct AddressTable {
    most: usize,
    /// A lock, because connections begin and end in different tasks; it is held for one access to
    /// the map.
    open: Mutex<HashMap<Subscriber, usize>>,
}

/// The client network of an address, as far as it can be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Subscriber {
    V4([u8; 4]),
    /// The upper half of the address.
    V6([u16; 4]),
}

/// A permit for a connection of an address; dropping it returns the permit.
#[derive(Debug)]
pub struct AddressPermit {
    table: Arc<AddressTable>,
    subscriber: Subscriber,
}

/// The address has reached its limit of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMany;

impl Addresses {
    /// Of each address so many connections; `None`, which is no limit, for zero.
    pub fn new(most: usize) -> Option<Self> {
        let table = || AddressTable {
            most,
            open: Mutex::default(),
        };
        (most > 0).then(|| Self(Arc::new(table())))
    }

    /// Acquires a permit for a connection of this address.
    pub fn claim(&self, address: IpAddr) -> Result<AddressPermit, TooMany> {
        let subscriber = Subscriber::of(address);
        let mut open = self.0.lock();
        // Looked up first: a refusal leaves no entry.
        let count = open.get(&subscriber).copied().unwrap_or(0);
        if count >= self.0.most {
            return Err(TooMany);
        }
        open.insert(subscriber, count + 1);
        Ok(AddressPermit {
            table: self.0.clone(),
            subscriber,
        })
    }

    /// How many addresses have a connection.
    pub fn len(&self) -> usize {
        self.0.lock().len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl AddressTable {
    fn lock(&self) -> MutexGuard<'_, HashMap<Subscriber, usize>> {
        // A panic of a holder leaves no inconsistent state.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for AddressPermit {
    fn drop(&mut self) {
        let mut open = self.table.lock();
        match open.get_mut(&self.subscriber) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                open.remove(&self.subscriber);
                if open.capacity() > 4 * open.len() + 64 {
                    let keep = 2 * open.len();
                    open.shrink_to(keep);
                }
            }
        }
    }
}

impl Subscriber {
    pub(crate) fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address.octets()),
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                Self::V6([a, b, c, d])
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(addresses: &Addresses, address: &str) -> Result<AddressPermit, TooMany> {
        addresses.claim(address.parse().unwrap())
    }

    #[test]
    fn addresses_have_permits_of_their_own_and_reuse_them() {
        let addresses = Addresses::new(2).unwrap();
        let first = claim(&addresses, "192.0.2.1").unwrap();
        // The same address, as an IPv4-mapped IPv6 address.
        let second = claim(&addresses, "::ffff:192.0.2.1").unwrap();
        assert_eq!(claim(&addresses, "192.0.2.1").unwrap_err(), TooMany);
        let other = claim(&addresses, "192.0.2.2").unwrap();
        assert_eq!(addresses.len(), 2);
        drop(first);
        let third = claim(&addresses, "192.0.2.1").unwrap();
        drop((second, third, other));
        assert!(addresses.is_empty());
    }

    #[test]
    fn an_ipv6_subscriber_has_no_more_places_than_any_other() {
        let addresses = Addresses::new(1).unwrap();
        let _held = claim(&addresses, "2001:db8:1:2:3:4:5:6").unwrap();
        assert!(claim(&addresses, "2001:db8:1:2:ffff::1").is_err());
        assert!(claim(&addresses, "2001:db8:1:3::1").is_ok());
    }

    #[test]
    fn table_holds_only_addresses_with_connections() {
        let addresses = Addresses::new(1).unwrap();
        let claims: Vec<_> = (0..10_000_u32)
            .map(|n| addresses.claim(IpAddr::V4(n.into())).unwrap())
            .collect();
        for n in 0..10_000_u32 {
            assert!(addresses.claim(IpAddr::V4(n.into())).is_err());
        }
        assert_eq!(addresses.len(), claims.len());
        drop(claims);
        assert!(addresses.is_empty());
        assert!(addresses.0.lock().capacity() <= 64);
    }

    #[test]
    fn zero_means_no_limit() {
        assert!(Addresses::new(0).is_none());
    }
}
