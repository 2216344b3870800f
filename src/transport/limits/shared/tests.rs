//! Users and addresses: rates over many connections, and the bounds of the table.

use std::cell::Cell;

use super::*;
use crate::transport::limits::Quota;

const SECOND: u64 = 1_000_000_000;

fn quotas() -> SharedQuotas {
    SharedQuotas::new(SharedLimits {
        rooms_per_session: 128,
        max_rooms: 100_000,
    })
}

fn limits() -> IngressLimits {
    IngressLimits {
        commands: Rate::new(100, 2),
        bytes: Rate::new(1 << 18, 4),
        rate_timeout: Duration::from_secs(10),
        fragments: 1024,
        message_timeout: Duration::from_secs(60),
    }
}

fn user(n: usize) -> UserName {
    UserName::new(&format!("user{n}")).unwrap()
}

fn commands(commands: u32, now: u64) -> Charge {
    Charge {
        commands,
        bytes: 0,
        now,
    }
}

/// What a client may send in a minute that connects anew whenever it would have to wait, and of
/// which each connection sends 35 commands at once, as many as one read has.
fn sent_over_new_connections(shared: impl Fn(u64) -> Arc<SharedQuota>) -> u32 {
    let (limits, mut now, mut sent) = (limits(), 0, 0);
    while now < 60 * SECOND {
        now += SECOND / 1000;
        for _ in 0..4 {
            let quota = Quota::new(Some(shared(now)));
            if quota.charge(&limits, commands(0, now)).wait().is_zero() {
                quota.charge(&limits, commands(35, now));
                sent += 35;
            }
        }
    }
    sent
}

#[test]
fn user_with_ever_new_connections_stays_within_its_rate() {
    let quotas = quotas();
    let sent = sent_over_new_connections(|now| quotas.of_user(&user(1), now));
    // The burst, a minute at four times a session's rate, and one read.
    assert!((24_000..=800 + 24_000 + 35).contains(&sent), "{sent}");
}

#[test]
fn address_with_ever_new_connections_stays_within_its_rate() {
    let quotas = quotas();
    let host = Cell::new(0_u16);
    let sent = sent_over_new_connections(|now| {
        host.set(host.get().wrapping_add(1));
        let address = IpAddr::from([0x2001, 0xdb8, 1, 2, host.get(), 0, 0, 1]);
        quotas.of_address(address, now)
    });
    assert!((120_000..=4000 + 120_000 + 35).contains(&sent), "{sent}");
}

#[test]
fn new_connections_of_an_address_are_bounded() {
    let quotas = quotas();
    let address = IpAddr::from([192, 0, 2, 1]);
    let connect = |now| quotas.of_address(address, now).connect(now);
    assert_eq!((0..5000).filter(|_| connect(0)).count(), 1000);
    assert_eq!((0..5000).filter(|_| connect(SECOND)).count(), 200);
}

#[test]
fn rooms_of_a_node_are_shared_out() {
    let quotas = quotas();
    let ada = quotas.of_user(&user(1), 0);
    let permits: Vec<_> = std::iter::from_fn(|| ada.open_room()).collect();
    assert_eq!(permits.len(), 2000);
    drop(permits);
    assert!(ada.open_room().is_some());
    let address = quotas.of_address([192, 0, 2, 1].into(), 0);
    let permits: Vec<_> = std::iter::from_fn(|| address.open_room()).collect();
    assert_eq!(permits.len(), 10_000);
}

#[test]
fn table_forgets_only_what_is_full() {
    let quotas = quotas();
    let busy = quotas.of_user(&user(0), 0);
    busy.charge(&limits(), commands(100_000, 0));
    drop(busy);
    let held = quotas.of_user(&user(1), 0);
    // Each of these is full again after a quarter of a second.
    for n in 2..200_000 {
        let now = n as u64 * SECOND / 1000;
        quotas
            .of_user(&user(n), now)
            .charge(&limits(), commands(100, now));
    }
    assert!(quotas.lock().entries.len() <= 2 * FEW);
    let now = 200 * SECOND;
    let busy = quotas.of_user(&user(0), now);
    assert!(!busy.charge(&limits(), commands(0, now)).is_zero());
    assert!(Arc::ptr_eq(&held, &quotas.of_user(&user(1), now)));
}

#[test]
fn table_is_bounded_although_no_bucket_is_full() {
    let quotas = quotas();
    let busy = quotas.of_user(&user(0), 0);
    busy.charge(&limits(), commands(100_000, 0));
    drop(busy);
    for n in 1..3 * ENTRIES {
        quotas
            .of_user(&user(n), 0)
            .charge(&limits(), commands(100, 0));
        assert!(quotas.lock().entries.len() <= ENTRIES + FEW);
    }
    let busy = quotas.of_user(&user(0), 0);
    assert!(!busy.charge(&limits(), commands(0, 0)).is_zero());
}
