//! Small histories, each with one violation that no scenario causes at will, and the verdict that
//! the judge must return.

use super::{Verdict, judge_lines};
use crate::bars::{Bars, ExpectedGaps};
use crate::history::{Ends, Event, Fate, Kept, Line, Loss, Position, Rooms};

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
    let run = |gaps| Event::Run {
        scenario: "case".into(),
        seed: 0,
        load: "case".into(),
        clients: 1,
        rooms: 1,
        bars: Bars {
            gaps,
            ..Bars::default()
        },
    };
    let start = || {
        vec![
            run(ExpectedGaps::Never),
            joined(1, "e", 0),
            published(1),
            acknowledged(1, "e", 1),
            received(1, "e", 1),
        ]
    };
    let with = |more: &[Event]| [start(), more.to_vec()].concat();
    let forgot = || fault(Loss::Everything);
    let mut cases: Vec<Case> = vec![
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
            "one position, two publications",
            with(&[published(2), acknowledged(2, "e", 1), end("e", 1)]),
            |v| v.unexpected == 1,
        ),
        (
            "the publisher's order is reversed",
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
            "gap without a reason",
            with(&[gap("e", 1), end("e", 1)]),
            |v| v.false_alarms == 1,
        ),
        (
            "two gaps for one reason",
            with(&[forgot(), gap("f", 0), gap("g", 0), end("g", 0)]),
            |v| v.false_alarms == 1,
        ),
        (
            "gap after a loss",
            with(&[
                forgot(),
                gap("f", 0),
                published(2),
                acknowledged(2, "f", 1),
                received(2, "f", 1),
                end("f", 1),
            ]),
            |v| v.is_green() && v.gaps == 1,
        ),
        (
            "published again after a gap",
            with(&[forgot(), gap("f", 0), received(1, "f", 1), end("f", 1)]),
            |v| v.is_green(),
        ),
        (
            "another epoch without a gap",
            with(&[forgot(), published(2), acknowledged(2, "f", 1), end("e", 1)]),
            |v| v.lost == 1,
        ),
        (
            "recovered with a hole",
            with(&[rejoined("e", 1, "e", 3), end("e", 1)]),
            |v| v.lost == 2,
        ),
        (
            "recovered into another epoch",
            with(&[rejoined("e", 1, "f", 1), end("e", 1)]),
            |v| v.unexpected == 1,
        ),
        (
            "not all members received a gap",
            [
                vec![run(ExpectedGaps::Everywhere)],
                start().split_off(1),
                vec![end("e", 1)],
            ]
            .concat(),
            |v| !v.is_green() && v.lost == 0,
        ),
        (
            "listed correctly",
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
            "present and not listed",
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
            with(&[
                presence_event("ada", false, 3),
                presence_event("ada", false, 4),
            ]),
            |v| v.changes_out_of_order == 1,
        ),
        (
            "joined twice, with a reset of the list in between",
            with(&[
                presence_event("ada", true, 3),
                members_reset(),
                presence_event("ada", true, 2),
                end("e", 1),
            ]),
            |v| v.is_green() && v.changes == 2,
        ),
        (
            "presence event of an older version",
            with(&[
                presence_event("ada", false, 4),
                presence_event("ada", true, 3),
            ]),
            |v| v.changes_out_of_order == 1,
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
    ];
    cases.extend(ended_epochs(&start()));
    cases.extend(lost_tails(&start()));
    cases.extend(histories(&start()));
    cases
}

/// Faults that end the epoch and lose nothing.
fn ended_epochs(start: &[Event]) -> Vec<Case> {
    let with = |more: &[Event]| [start, more].concat();
    let second = [published(2), acknowledged(2, "e", 2)];
    let restarted = || fault(Loss::Nothing);
    let goes_on = |epoch: &str| {
        let at = acknowledged(3, epoch, 3);
        [published(3), at, received(3, epoch, 3), end(epoch, 3)]
    };
    vec![
        (
            "a gap at the end of the epoch, and the offsets go on",
            with(&[
                restarted(),
                gap("f", 1),
                published(2),
                acknowledged(2, "f", 2),
                received(2, "f", 2),
                end("f", 2),
            ]),
            |v| v.is_green() && v.gaps == 1,
        ),
        (
            "recovered in an ended epoch, then a gap at its end",
            {
                let back = [
                    restarted(),
                    rejoined("e", 1, "e", 1),
                    received(2, "e", 2),
                    gap("f", 2),
                ];
                with(&[&second[..], &back, &goes_on("f")].concat())
            },
            |v| v.is_green() && v.gaps == 1,
        ),
        (
            "recovered in an ended epoch, then a gap before its end",
            {
                let back = [restarted(), rejoined("e", 1, "e", 1), gap("f", 2)];
                with(&[&second[..], &back, &goes_on("f")].concat())
            },
            |v| v.lost == 1,
        ),
        (
            "one gap for two ended epochs",
            with(&[restarted(), restarted(), gap("g", 1), end("g", 1)]),
            |v| v.is_green() && v.gaps == 1,
        ),
        (
            "two gaps for one ended epoch",
            with(&[restarted(), gap("f", 1), gap("g", 1), end("g", 1)]),
            |v| v.false_alarms == 1,
        ),
        (
            "the offsets do not go on",
            with(&[
                restarted(),
                gap("f", 0),
                published(2),
                acknowledged(2, "f", 1),
                received(2, "f", 1),
                end("f", 1),
            ]),
            |v| v.lost == 1 && v.unexpected == 1,
        ),
        (
            "sent again after the gap",
            {
                let again = [restarted(), gap("f", 0), received(1, "f", 1)];
                let new = [published(2), acknowledged(2, "f", 2)];
                let rest = [received(2, "f", 2), end("f", 2)];
                with(&[&again[..], &new, &rest].concat())
            },
            |v| v.duplicated == 1,
        ),
        (
            "published anew although nothing was lost",
            {
                let anew = [restarted(), gap("f", 1), received(1, "f", 2)];
                with(&[&anew[..], &goes_on("f")].concat())
            },
            |v| v.duplicated == 1,
        ),
        (
            "acknowledged with its first position after the epoch ended",
            {
                let seen = [published(2), received(2, "e", 2), restarted(), gap("f", 2)];
                with(&[&seen[..], &[acknowledged(2, "e", 2)], &goes_on("f")].concat())
            },
            |v| v.is_green(),
        ),
        (
            "position before the end is not recovered",
            {
                let back = [restarted(), refused_at("e", 1, "f", 2)];
                with(&[&second[..], &back, &goes_on("f")].concat())
            },
            |v| v.lost == 1,
        ),
        (
            "what several ended epochs left, received in the first of them",
            {
                let f = [published(2), acknowledged(2, "f", 2), received(2, "f", 2)];
                let g = [restarted(), gap("g", 2), end("g", 2)];
                let other = [
                    there(2),
                    rejoined("e", 1, "e", 1).of(2),
                    received(2, "e", 2).of(2),
                    gap("g", 2).of(2),
                    end("g", 2).of(2),
                ];
                with(&[&[restarted(), gap("f", 1)], &f[..], &g, &other].concat())
            },
            |v| v.is_green() && v.memberships == 2,
        ),
    ]
}

/// Faults that end the epoch and lose the tail of the log.
fn lost_tails(start: &[Event]) -> Vec<Case> {
    let with = |more: &[Event]| [start, more].concat();
    let restored = || fault(Loss::Tail);
    // Received by the client, and never acknowledged in the first epoch.
    let tail = || [published(2), received(2, "e", 2), restored()];
    let anew = |offset: u64| {
        let at = acknowledged(2, "f", offset);
        [at, received(2, "f", offset), end("f", offset)]
    };
    vec![
        (
            "lost with the tail",
            with(&[
                published(2),
                acknowledged(2, "e", 2),
                received(2, "e", 2),
                restored(),
                gap("f", 1),
                published(3),
                acknowledged(3, "f", 2),
                received(3, "f", 2),
                end("f", 2),
            ]),
            |v| v.is_green(),
        ),
        (
            "saved and lost nevertheless",
            with(&[
                Event::Saved,
                restored(),
                gap("f", 0),
                published(2),
                acknowledged(2, "f", 1),
                received(2, "f", 1),
                end("f", 1),
            ]),
            |v| v.lost == 1,
        ),
        (
            "a lost message is published anew where it stood",
            with(&[&tail()[..], &[gap("f", 1)], &anew(2)].concat()),
            |v| v.is_green(),
        ),
        (
            "a lost message is published anew behind another",
            {
                let another = [published(7), acknowledged(7, "f", 2), received(7, "f", 2)];
                let another = another.map(|event| event.by(2));
                with(&[&tail()[..], &[gap("f", 1)], &another, &anew(3)].concat())
            },
            |v| v.is_green(),
        ),
        (
            "a message that survived is published anew",
            with(&[&tail()[..], &[gap("f", 2)], &anew(3)].concat()),
            |v| v.duplicated == 1,
        ),
        (
            "a message that survived is sent again after the gap",
            {
                let again = [restored(), gap("f", 0), received(1, "f", 1)];
                let second = [published(2), acknowledged(2, "f", 2)];
                let rest = [received(2, "f", 2), end("f", 2)];
                with(&[&again[..], &second, &rest].concat())
            },
            |v| v.duplicated == 1 && v.lost == 0,
        ),
        (
            "a lost message is published anew twice",
            {
                let third = [received(2, "f", 3), end("f", 3)];
                with(&[&tail()[..], &[gap("f", 1)], &anew(2)[..2], &third].concat())
            },
            |v| v.duplicated == 1,
        ),
        (
            "a gap skips what survived",
            {
                let second = [published(2), acknowledged(2, "e", 2), restored()];
                with(&[&second[..], &[gap("f", 2), end("f", 2)]].concat())
            },
            |v| v.lost == 1,
        ),
    ]
}

/// The history of a room, read at the end.
fn histories(start: &[Event]) -> Vec<Case> {
    let with = |loss, at: u64, kept: &[(u64, u64)]| {
        let (first, next) = (gap("f", at), at + 1);
        let second = [
            published(2),
            acknowledged(2, "f", next),
            received(2, "f", next),
        ];
        let rest = [history(kept), end("f", next)];
        [start, &[fault(loss), first], &second, &rest].concat()
    };
    vec![
        (
            "the history has all that survived",
            with(Loss::Nothing, 1, &[(1, 1), (2, 2)]),
            |v| v.is_green() && v.histories == 1,
        ),
        (
            "the history lacks what survived",
            with(Loss::Nothing, 1, &[(2, 2)]),
            |v| v.wrong_histories == 1 && v.lost == 0,
        ),
        (
            "the history lacks what is new",
            with(Loss::Nothing, 1, &[(1, 1)]),
            |v| v.wrong_histories == 1,
        ),
        (
            "the history has a hole",
            with(Loss::Nothing, 1, &[(1, 1), (3, 2)]),
            |v| v.wrong_histories == 1,
        ),
        (
            "the history has a message twice",
            with(Loss::Nothing, 1, &[(1, 1), (2, 1)]),
            |v| v.wrong_histories == 1,
        ),
        (
            "the history has what was never published",
            with(Loss::Nothing, 1, &[(1, 1), (2, 2), (3, 7)]),
            |v| v.wrong_histories == 1,
        ),
        (
            "the history begins anew when everything is lost",
            with(Loss::Everything, 0, &[(1, 2)]),
            |v| v.is_green() && v.histories == 1,
        ),
    ]
}

fn fault(loss: Loss) -> Event {
    let rooms = Rooms::Everywhere;
    Event::Fault {
        what: "Redis restarts".into(),
        ends: Some(Ends { rooms, loss }),
    }
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

/// Returned, not recovered, and set to another position.
fn refused_at(from: &str, at: u64, epoch: &str, offset: u64) -> Event {
    Event::Joined {
        client: 1,
        room: ROOM.into(),
        epoch: epoch.into(),
        offset,
        top: offset,
        since: Some(position(from, at)),
        recovered: Some(false),
    }
}

fn history(kept: &[(u64, u64)]) -> Event {
    let kept = kept.iter().map(|(offset, seq)| Kept {
        offset: *offset,
        publisher: 1,
        seq: *seq,
    });
    Event::History {
        client: 1,
        room: ROOM.into(),
        epoch: Some("f".into()),
        messages: kept.collect(),
    }
}

impl Event {
    /// The same, for a publication of another client.
    fn by(mut self, other: usize) -> Self {
        if let Event::Invoke { client, .. }
        | Event::Ok { client, .. }
        | Event::Receive {
            publisher: client, ..
        } = &mut self
        {
            *client = other;
        }
        self
    }

    /// The same, for another client.
    fn of(mut self, other: usize) -> Self {
        if let Event::Joined { client, .. }
        | Event::Receive { client, .. }
        | Event::Gap { client, .. }
        | Event::End { client, .. } = &mut self
        {
            *client = other;
        }
        self
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

/// A first join of the room.
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

fn presence_event(user: &str, here: bool, version: u64) -> Event {
    Event::PresenceChange {
        client: 1,
        room: ROOM.into(),
        user: user.into(),
        here,
        version,
    }
}

fn members_reset() -> Event {
    Event::MembersReset {
        client: 1,
        room: ROOM.into(),
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
