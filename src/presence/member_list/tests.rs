//! A list over a simulated store: changes are lost and late, lists are read in pages, and in the
//! end the members must have the true list.

use super::*;
use serde_json::value::RawValue;
use std::collections::BTreeSet;

const MEMORY: usize = 1 << 20;

fn user(n: u64) -> UserName {
    UserName::new(&format!("u{n:04}")).unwrap()
}

fn change(from: u64, n: u64, was: u32, connections: u32) -> Change {
    Change {
        from,
        version: from + 1,
        user: user(n),
        was,
        connections,
        info: None,
    }
}

fn page(version: u64, users: impl IntoIterator<Item = u64>) -> MemberPage {
    let member = |n| Member {
        user: user(n),
        connections: 1,
        info: None,
    };
    let members: Vec<Member> = users.into_iter().map(member).collect();
    MemberPage {
        version,
        count: members.len() as u64,
        members,
        anonymous: 0,
        more: false,
    }
}

/// `+u0001@3` for joined, `-` for left, `?@3` for a list to be queried again.
fn lines(changes: Vec<MemberChange>) -> Vec<String> {
    let text = |one| match one {
        MemberChange::Joined { user, version, .. } => format!("+{user}@{version}"),
        MemberChange::Left { user, version } => format!("-{user}@{version}"),
        MemberChange::Anew { version } => format!("?@{version}"),
    };
    changes.into_iter().map(text).collect()
}

/// A list that has been read.
fn settled(version: u64, users: impl IntoIterator<Item = u64>, memory: usize) -> MemberList {
    let mut list = MemberList::default();
    list.make_due();
    assert_eq!(
        list.next_read(),
        ListQuery {
            after: None,
            limit: PAGE
        }
    );
    let mut changes = Vec::new();
    list.on_page(page(version, users), memory, &mut changes);
    assert!(changes.is_empty() && !list.is_due());
    list
}

fn receive(list: &mut MemberList, change: Change) -> Vec<String> {
    let mut changes = Vec::new();
    list.receive(change, true, &mut changes);
    lines(changes)
}

fn on_page(list: &mut MemberList, page: MemberPage) -> Vec<String> {
    let mut changes = Vec::new();
    list.on_page(page, MEMORY, &mut changes);
    lines(changes)
}

#[test]
fn first_connection_joins_and_last_connection_leaves() {
    let mut list = settled(5, [1], MEMORY);
    assert_eq!(receive(&mut list, change(5, 2, 0, 1)), ["+u0002@6"]);
    assert_eq!(receive(&mut list, change(6, 2, 1, 2)), [""; 0]);
    assert_eq!(receive(&mut list, change(7, 2, 2, 1)), [""; 0]);
    assert_eq!(
        receive(&mut list, change(6, 3, 0, 1)),
        [""; 0],
        "a duplicate"
    );
    assert_eq!(receive(&mut list, change(8, 2, 1, 0)), ["-u0002@9"]);
    let page = list.page(None, 10, MEMORY).unwrap();
    assert_eq!((page.version, page.count, page.members.len()), (9, 1, 1));
}

#[test]
fn hole_is_closed_by_one_list_and_sent_as_its_difference() {
    let mut list = settled(5, [1, 2], MEMORY);
    assert_eq!(
        receive(&mut list, change(8, 9, 0, 1)),
        [""; 0],
        "a change is missing"
    );
    assert!(list.is_due());
    list.next_read();
    assert_eq!(receive(&mut list, change(9, 4, 0, 1)), [""; 0], "it waits");
    let changes = on_page(&mut list, page(9, [2, 3, 9]));
    assert_eq!(changes, ["-u0001@9", "+u0003@9", "+u0009@9", "+u0004@10"]);
    assert!(!list.is_due());
}

#[test]
fn equal_versions_after_a_resubscription_read_no_list() {
    let mut list = settled(5, [1], MEMORY);
    list.make_due();
    assert_eq!(list.next_read().limit, 0);
    assert_eq!(on_page(&mut list, page(5, [])), [""; 0]);
    assert!(!list.is_due());
    list.make_due();
    list.next_read();
    assert_eq!(on_page(&mut list, page(7, [])), [""; 0]);
    assert_eq!(list.next_read().limit, PAGE, "they differ");
    assert_eq!(on_page(&mut list, page(7, [2])), ["-u0001@7", "+u0002@7"]);
}

#[test]
fn resubscription_restarts_the_list_read() {
    let mut list = settled(5, [1], MEMORY);
    receive(&mut list, change(8, 9, 0, 1));
    list.next_read();
    let first = MemberPage {
        more: true,
        ..page(9, [1])
    };
    assert_eq!(on_page(&mut list, first), [""; 0]);
    assert_eq!(list.next_read().after, Some(user(1)));
    list.make_due();
    assert_eq!(on_page(&mut list, page(9, [9])), [""; 0]);
    assert_eq!(list.next_read().after, None);
    assert_eq!(
        on_page(&mut list, page(11, [9])),
        ["-u0001@11", "+u0009@11"]
    );
}

#[test]
fn store_that_went_back_makes_members_query_again() {
    let mut list = settled(50, [1], MEMORY);
    list.make_due();
    list.next_read();
    on_page(&mut list, page(3, []));
    list.next_read();
    assert_eq!(on_page(&mut list, page(3, [2])), ["?@3"]);
    assert_eq!(receive(&mut list, change(3, 5, 0, 1)), ["+u0005@4"]);
}

#[test]
fn list_that_does_not_fit_costs_one_page_and_changes_are_still_sent() {
    let mut list = MemberList::default();
    list.make_due();
    list.next_read();
    let first = MemberPage {
        count: 1_000_000,
        more: true,
        ..page(7, [1])
    };
    assert_eq!(on_page(&mut list, first), [""; 0]);
    assert!(list.is_known() && !list.has_list() && !list.is_due());
    assert!(list.page(None, 1, MEMORY).is_none());
    assert_eq!(receive(&mut list, change(7, 4, 0, 1)), ["+u0004@8"]);
    assert_eq!(receive(&mut list, change(8, 4, 1, 2)), [""; 0]);
    assert_eq!(receive(&mut list, change(9, 4, 2, 0)), ["-u0004@10"]);
    assert_eq!(receive(&mut list, change(12, 4, 0, 1)), [""; 0]);
    list.next_read();
    let again = MemberPage {
        count: 1_000_000,
        more: true,
        ..page(13, [1])
    };
    assert_eq!(
        on_page(&mut list, again),
        ["?@13"],
        "the missed changes are unknown"
    );
    assert_eq!(list.weight(), 0);
}

#[test]
fn changes_that_wait_for_a_list_are_bounded() {
    let mut list = settled(0, [], MEMORY);
    receive(&mut list, change(5, 1, 0, 1));
    list.next_read();
    for from in 6..6 + 2 * AHEAD as u64 {
        receive(&mut list, change(from, 1, 1, 1));
        assert!(list.ahead.len() <= AHEAD);
    }
    on_page(&mut list, page(9_000, [1]));
    assert!(list.is_due(), "the list is read again");
}

#[test]
fn pages_are_bounded_by_number_and_bytes_and_weights_return_to_zero() {
    let info: Info = RawValue::from_string(format!("\"{}\"", "x".repeat(500)))
        .unwrap()
        .into();
    let mut list = settled(0, [], MEMORY);
    for n in 0..10 {
        let info = Some(info.clone());
        receive(
            &mut list,
            Change {
                info,
                ..change(n, n, 0, 1)
            },
        );
    }
    let page = list.page(Some(&user(2)), 3, MEMORY).unwrap();
    let names: Vec<&str> = page
        .members
        .iter()
        .map(|member| member.user.as_str())
        .collect();
    assert_eq!((names, page.more), (vec!["u0003", "u0004", "u0005"], true));
    let page = list.page(None, 100, 1500).unwrap();
    assert_eq!((page.members.len(), page.more, page.count), (2, true, 10));
    assert_eq!(list.page(None, 100, 1).unwrap().members.len(), 1);
    for n in 0..10 {
        receive(&mut list, change(10 + n, n, 1, 0));
    }
    assert_eq!(list.weight(), 0);
}

/// The naive store: the users in the room, and the version of the last change.
#[derive(Default)]
struct Store {
    version: u64,
    users: BTreeMap<u64, u32>,
}

impl Store {
    fn change(&mut self, random: &mut fastrand::Rng) -> Change {
        let n = random.u64(..6);
        let was = self.users.get(&n).copied().unwrap_or(0);
        let connections = random.u32(..3);
        self.users.insert(n, connections);
        self.users.retain(|_, connections| *connections > 0);
        self.version += 1;
        change(self.version - 1, n, was, connections)
    }

    fn page(&self, query: &ListQuery) -> MemberPage {
        let behind = |n: &u64| query.after.as_ref().is_none_or(|after| user(*n) > *after);
        let rest: Vec<_> = self.users.iter().filter(|(n, _)| behind(n)).collect();
        // Pages of two at most, so that there are several.
        let limit = query.limit.min(2);
        let member = |(n, connections): &(&u64, &u32)| Member {
            user: user(**n),
            connections: **connections,
            info: None,
        };
        MemberPage {
            version: self.version,
            members: rest.iter().take(limit).map(member).collect(),
            count: self.users.len() as u64,
            anonymous: 0,
            more: rest.len() > limit,
        }
    }
}

/// A client that follows the protocol: it reads the pages and applies changes of a higher version.
#[derive(Default)]
struct Client {
    users: BTreeSet<UserName>,
    /// Its list is no longer valid.
    lost: bool,
}

#[test]
fn members_have_the_true_list_in_the_end_whatever_was_missed() {
    for seed in 0..3000 {
        let mut random = fastrand::Rng::with_seed(seed);
        let memory = *[MEMORY, MEMORY, 3 * OVERHEAD]
            .get(random.usize(..3))
            .unwrap();
        let (mut store, mut list, mut client) = (
            Store::default(),
            MemberList::default(),
            Client {
                lost: true,
                ..Client::default()
            },
        );
        let mut pushes: VecDeque<Change> = VecDeque::new();
        let mut answers: VecDeque<MemberPage> = VecDeque::new();
        list.make_due();
        let mut last = 0;
        let mut take = |client: &mut Client, list: &MemberList, changes: Vec<MemberChange>| {
            for one in changes {
                match one {
                    MemberChange::Joined { user, version, .. } => {
                        assert!(version >= last, "seed {seed}");
                        last = version;
                        assert!(
                            client.users.insert(user) || client.lost,
                            "seed {seed}: twice"
                        );
                    }
                    MemberChange::Left { user, version } => {
                        assert!(version >= last, "seed {seed}");
                        last = version;
                        assert!(
                            client.users.remove(&user) || client.lost,
                            "seed {seed}: twice"
                        );
                    }
                    MemberChange::Anew { .. } => client.lost = true,
                }
            }
            if client.lost
                && let Some(page) = list.page(None, 100, MEMORY)
            {
                client.users = page.members.into_iter().map(|member| member.user).collect();
                client.lost = false;
            }
        };
        for round in 0..400 {
            let calm = round > 200;
            let mut changes = Vec::new();
            match random.u8(..7) {
                0..2 if !calm => {
                    let change = store.change(&mut random);
                    if random.u8(..6) > 0 {
                        pushes.push_back(change);
                    }
                }
                2 if !calm && random.u8(..8) == 0 => {
                    // The subscription breaks: changes in flight are lost.
                    pushes.clear();
                    list.make_due();
                }
                3 => {
                    if let Some(change) = pushes.pop_front() {
                        list.receive(change, true, &mut changes);
                    }
                }
                4 if list.is_due() => {
                    let query = list.next_read();
                    answers.push_back(store.page(&query));
                }
                5 => match answers.pop_front() {
                    Some(_) if random.u8(..6) == 0 => list.failed(),
                    Some(page) => list.on_page(page, memory, &mut changes),
                    None => {}
                },
                6 if !calm && random.u8(..10) == 0 => list.give_up(),
                _ => {}
            }
            take(&mut client, &list, changes);
        }
        // The last change may be among the lost ones: a resubscription detects it.
        for change in pushes {
            let mut changes = Vec::new();
            list.receive(change, true, &mut changes);
            take(&mut client, &list, changes);
        }
        list.make_due();
        for _ in 0..50 {
            let mut changes = Vec::new();
            if let Some(page) = answers.pop_front() {
                list.on_page(page, MEMORY, &mut changes);
            } else if list.is_due() {
                let query = list.next_read();
                answers.push_back(store.page(&query));
            }
            take(&mut client, &list, changes);
        }
        assert!(
            !list.is_due() && answers.is_empty(),
            "seed {seed}: no read is due"
        );
        let truth: BTreeSet<UserName> = store.users.keys().map(|n| user(*n)).collect();
        assert_eq!(list.version, Some(store.version), "seed {seed}");
        if let Some(page) = list.page(None, 100, MEMORY) {
            let listed: BTreeMap<_, _> = page
                .members
                .iter()
                .map(|member| (member.user.clone(), member.connections))
                .collect();
            let all: BTreeMap<_, _> = store
                .users
                .iter()
                .map(|(n, count)| (user(*n), *count))
                .collect();
            assert_eq!(listed, all, "seed {seed}");
            assert!(!client.lost);
        }
        if !client.lost {
            assert_eq!(client.users, truth, "seed {seed}");
        }
        assert_eq!(
            list.weight() > 0,
            list.has_list() && !truth.is_empty(),
            "seed {seed}"
        );
    }
}
