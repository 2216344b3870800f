//! Small histories, each with one thing wrong that no scenario brings about at will, and what the judge must say.

use super::{Verdict, judge_lines};
use crate::bars::{Bars, Told};
use crate::history::{Event, Fate, Line, Loses, Position};

/// A case: what is wrong, the history, and whether the verdict is the right one.
type Case = (&'static str, Vec<Event>, fn(&Verdict) -> bool);

/// Between two lines, in microseconds.
const SECOND: u64 = 1_000_000;

/// The names of the cases that are misjudged.
pub fn misjudged() -> Vec<&'static str> {
    let is_misjudged = |(_, events, right): &Case| {
        let lines = events.iter().cloned().enumerate();
        let lines = lines.map(|(at, event)| {
            Ok(Line {
                at: at as u64 * SECOND,
                event,
            })
        });
        !judge_lines(lines).is_ok_and(|verdict| right(&verdict))
    };
    let misjudged = cases().into_iter().filter(is_misjudged);
    misjudged.map(|(name, ..)| name).collect()
}

fn cases() -> Vec<Case> {
    let run = |told| Event::Run {
        scenario: "case".into(),
        seed: 0,
        load: "case".into(),
        clients: 1,
        rooms: 1,
        bars: Bars {
            told,
            ..Bars::default()
        },
    };
    let start = || {
        vec![
            run(Told::Nobody),
            joined(1, "e", 0),
            published(1),
            acknowledged(1, "e", 1),
            received(1, "e", 1),
        ]
    };
    let with = |more: &[Event]| [start(), more.to_vec()].concat();
    let forgot = || Event::Fault {
        what: "Redis forgot".into(),
        loses: Some(Loses::Everywhere),
    };
    vec![
        ("nothing is wrong", with(&[end("e", 1)]), |v| v.is_green()),
        (
            "acknowledged and never seen",
            with(&[published(2), acknowledged(2, "e", 2), end("e", 1)]),
            |v| v.lost == 1,
        ),
        (
            "unknown and seen",
            with(&[published(2), unknown(2), received(2, "e", 2), end("e", 2)]),
            |v| v.is_green() && v.recovered == 1,
        ),
        (
            "refused and seen",
            with(&[published(2), refused(2), received(2, "e", 2), end("e", 2)]),
            |v| v.unexpected == 1,
        ),
        (
            "seen and never published",
            with(&[received(7, "e", 2), end("e", 2)]),
            |v| v.unexpected == 1,
        ),
        (
            "twice in the log",
            with(&[received(1, "e", 2), end("e", 2)]),
            |v| v.duplicated == 1,
        ),
        (
            "one place, two publications",
            with(&[published(2), acknowledged(2, "e", 1), end("e", 1)]),
            |v| v.unexpected == 1,
        ),
        (
            "the publisher's order is turned",
            with(&[
                published(2),
                published(3),
                received(3, "e", 2),
                received(2, "e", 3),
                end("e", 3),
            ]),
            |v| v.disordered == 1,
        ),
        (
            "told of a gap without a reason",
            with(&[gap("e", 1), end("e", 1)]),
            |v| v.false_alarms == 1,
        ),
        (
            "told of a gap twice for one reason",
            with(&[forgot(), gap("f", 0), gap("g", 0), end("g", 0)]),
            |v| v.false_alarms == 1,
        ),
        (
            "honestly told",
            with(&[
                forgot(),
                gap("f", 0),
                published(2),
                acknowledged(2, "f", 1),
                received(2, "f", 1),
                end("f", 1),
            ]),
            |v| v.is_green() && v.told == 1,
        ),
        (
            "published again after a told gap",
            with(&[forgot(), gap("f", 0), received(1, "f", 1), end("f", 1)]),
            |v| v.is_green(),
        ),
        (
            "another epoch without a word",
            with(&[forgot(), published(2), acknowledged(2, "f", 1), end("e", 1)]),
            |v| v.lost == 1,
        ),
        (
            "recovered with a leap",
            with(&[rejoined("e", 1, "e", 3), end("e", 1)]),
            |v| v.lost == 2,
        ),
        (
            "recovered into another epoch",
            with(&[rejoined("e", 1, "f", 1), end("e", 1)]),
            |v| v.unexpected == 1,
        ),
        (
            "not all were told",
            [
                vec![run(Told::Everyone)],
                start().split_off(1),
                vec![end("e", 1)],
            ]
            .concat(),
            |v| !v.is_green() && v.lost == 0,
        ),
        (
            "listed as they are",
            with(&[signed_in(1, "ada"), listed(&[("ada", 1)]), end("e", 1)]),
            |v| v.is_green() && v.lists == 1,
        ),
        (
            "listed after the end of its connection",
            with(&[
                signed_in(2, "bob"),
                there(2),
                closed(2),
                listed(&[("bob", 1)]),
            ]),
            |v| v.wrong_lists == 1,
        ),
        (
            "here and not listed",
            with(&[signed_in(1, "ada"), listed(&[])]),
            |v| v.wrong_lists == 1,
        ),
        (
            "one of two connections is not listed",
            with(&[
                signed_in(1, "ada"),
                signed_in(2, "ada"),
                there(2),
                listed(&[("ada", 1)]),
            ]),
            |v| v.wrong_lists == 1,
        ),
        (
            "left twice",
            with(&[told("ada", false, 3), told("ada", false, 4)]),
            |v| v.changes_out_of_turn == 1,
        ),
        (
            "told of an older version",
            with(&[told("ada", false, 4), told("ada", true, 3)]),
            |v| v.changes_out_of_turn == 1,
        ),
        (
            "acknowledged while Redis was away",
            {
                let away = [
                    Event::Absent { on: true },
                    published(2),
                    acknowledged(2, "e", 2),
                ];
                with(&[&away[..], &[received(2, "e", 2), end("e", 2)]].concat())
            },
            |v| v.acknowledged_in_absence == 1,
        ),
    ]
}

const ROOM: &str = "room";

fn joined(client: usize, epoch: &str, offset: u64) -> Event {
    Event::Joined {
        client,
        room: ROOM.into(),
        epoch: epoch.into(),
        offset,
        top: offset,
        since: None,
        recovered: None,
    }
}

fn rejoined(from: &str, at: u64, epoch: &str, offset: u64) -> Event {
    Event::Joined {
        client: 1,
        room: ROOM.into(),
        epoch: epoch.into(),
        offset,
        top: offset,
        since: Some(position(from, at)),
        recovered: Some(true),
    }
}

fn position(epoch: &str, offset: u64) -> Position {
    Position {
        epoch: epoch.into(),
        offset,
    }
}

fn published(seq: u64) -> Event {
    Event::Invoke {
        client: 1,
        room: ROOM.into(),
        seq,
        key: String::new(),
    }
}

fn acknowledged(seq: u64, epoch: &str, offset: u64) -> Event {
    Event::Ok {
        client: 1,
        room: ROOM.into(),
        seq,
        epoch: epoch.into(),
        offset,
    }
}

fn refused(seq: u64) -> Event {
    Event::Fail {
        client: 1,
        room: ROOM.into(),
        seq,
        code: "full".into(),
    }
}

fn unknown(seq: u64) -> Event {
    Event::Unknown {
        client: 1,
        room: ROOM.into(),
        seq,
    }
}

fn received(seq: u64, epoch: &str, offset: u64) -> Event {
    Event::Receive {
        client: 1,
        room: ROOM.into(),
        epoch: epoch.into(),
        offset,
        publisher: 1,
        seq,
        fate: Fate::Taken,
    }
}

fn signed_in(client: usize, user: &str) -> Event {
    let user = user.into();
    Event::SignedIn { client, user }
}

/// In the room, and never there before.
fn there(client: usize) -> Event {
    Event::Joined {
        client,
        room: ROOM.into(),
        epoch: "e".into(),
        offset: 1,
        top: 1,
        since: None,
        recovered: None,
    }
}

fn closed(client: usize) -> Event {
    Event::Closed {
        client,
        code: 1006,
        reason: "killed".into(),
        meant: true,
    }
}

fn told(user: &str, here: bool, version: u64) -> Event {
    Event::Told {
        client: 1,
        room: ROOM.into(),
        user: user.into(),
        here,
        version,
    }
}

fn listed(users: &[(&str, u32)]) -> Event {
    let users = users
        .iter()
        .map(|(user, connections)| ((*user).to_owned(), *connections));
    Event::Members {
        client: 1,
        room: ROOM.into(),
        version: 9,
        users: users.collect(),
        anonymous: 0,
    }
}

fn gap(epoch: &str, offset: u64) -> Event {
    Event::Gap {
        client: 1,
        room: ROOM.into(),
        epoch: epoch.into(),
        offset,
    }
}

fn end(epoch: &str, offset: u64) -> Event {
    Event::End {
        client: 1,
        room: ROOM.into(),
        position: Some(position(epoch, offset)),
    }
}
