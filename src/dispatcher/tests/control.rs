//! Commands between nodes about users: revoked tokens, joins and leaves by a backend, and logs that
//! are lost.

use super::identity::{holder, identified, secured};
use super::*;
use crate::broker::{LogRequest, PublishRequest, Revoke, StoredRevocations};
use crate::model::control::{ControlAction, ControlCommand, Cutoff};
use crate::model::epochs::Ends;
use crate::model::id::UserName;
use crate::model::identity::LEEWAY;

const REVOKED: &str = "$control.revoked";

/// Revokes the tokens issued up to this moment by any clock that is not ahead.
fn revoked(user: &str, moment: u64) -> Arc<Publication> {
    control_publication(user, ControlAction::Revoke(Cutoff::at(moment)), 1)
}

fn user(name: &str) -> UserName {
    UserName::new(name).unwrap()
}

/// The reply to the read of the set of revocations among these requests, with a confirmed set.
pub(super) fn stored(requests: &[Request], cutoffs: &[(&str, Cutoff)]) -> Event {
    stored_as(requests, cutoffs, true, 0)
}

fn stored_as(
    requests: &[Request],
    cutoffs: &[(&str, Cutoff)],
    is_confirmed: bool,
    awaited: u64,
) -> Event {
    let read = requests.iter().find_map(|request| match request {
        Request::Log(LogRequest::ReadRevocations(read)) => Some(read.ticket),
        _ => None,
    });
    let ticket = read.unwrap_or_else(|| panic!("the set is not read in {requests:?}"));
    let cutoffs = cutoffs.iter().map(|(name, cutoff)| (user(name), *cutoff));
    let result = Ok(StoredRevocations {
        cutoffs: cutoffs.collect(),
        data_set: "id".into(),
        is_confirmed,
        awaited,
    });
    Event::Broker(BrokerEvent::Revocations { ticket, result })
}

fn writes(requests: Vec<Request>) -> Vec<Revoke> {
    let writes = requests.into_iter().filter_map(|request| match request {
        Request::Log(LogRequest::Revoke(revoke)) => Some(revoke),
        _ => None,
    });
    writes.collect()
}

/// The reply to a write; these users are new in the set.
fn written(write: &Revoke, new: &[&str]) -> Event {
    Event::Broker(BrokerEvent::Revoked {
        ticket: write.ticket,
        result: Ok(new.iter().map(|name| user(name)).collect()),
    })
}

fn control_publication(user: &str, action: ControlAction, moment: u64) -> Arc<Publication> {
    let user = UserName::new(user).unwrap();
    Arc::new(ControlCommand { user, action }.to_publication(moment))
}

fn control_message(room: &str, offset: u64, publication: Arc<Publication>) -> Event {
    Event::Broker(BrokerEvent::Message {
        room: name(room),
        epoch: Epoch::new(EPOCH),
        offset,
        publication,
        received_at: Instant::now(),
    })
}

/// A whole log, as a read returns it.
fn log(ticket: Ticket, epoch: u64, publications: Vec<Arc<Publication>>) -> Event {
    let (epoch, offset) = (Epoch::new(epoch), publications.len() as u64);
    let result = Ok(Page {
        top: Position { epoch, offset },
        first: 1,
        ends: Ends::default(),
        expires_in: std::time::Duration::from_secs(60),
        messages: (1..).zip(publications).collect(),
    });
    Event::Broker(BrokerEvent::Page { ticket, result })
}

fn publishes(requests: Vec<Request>) -> Vec<PublishRequest> {
    let publishes = requests.into_iter().filter_map(|request| match request {
        Request::Log(LogRequest::Publish(publish)) => Some(publish),
        _ => None,
    });
    publishes.collect()
}

impl Bench {
    /// A node that has not read the control logs yet.
    fn behind() -> Self {
        let mut bench = Bench::new();
        bench.dispatcher.turn.settings.rights.open = false;
        bench.dispatcher.follow_control();
        let follows = bench.turn([]);
        assert!(matches!(
            &follows[..],
            [
                Request::Log(LogRequest::Follow(_)),
                Request::Log(LogRequest::Follow(_))
            ]
        ));
        bench
    }
}

#[test]
fn revocation_ends_sessions_with_older_tokens_and_refuses_those_tokens() {
    let mut bench = secured();
    let expires = bench.expires_in(60);
    let moment = expires - 60_000;
    let issued = |after: u64| holder("ada", "*", expires + after);
    let (old, doubtful, new) = (issued(0), issued(1), issued(LEEWAY + 1));
    let mut silent = Identity::clone(&old);
    silent.times.as_mut().unwrap().issued = None;
    let silent = Arc::new(silent);
    bench.signed_in(1, &old, 0);
    bench.signed_in(2, &new, 0);
    bench.signed_in(3, &holder("bob", "*", expires), 0);
    bench.signed_in(4, &silent, 0);
    bench.signed_in(5, &doubtful, 0);
    // A token issued at this very moment is not after it.
    bench.turn([control_message(REVOKED, 1, revoked("ada", moment))]);
    let codes = [1, 2, 3, 4, 5].map(|session| bench.closed(session));
    assert_eq!(codes, [Some(3500), None, None, Some(3500), Some(3008)]);
    for (session, identity, code, close) in [
        (6, old, "unauthorized", 3500),
        (7, silent, "unauthorized", 3500),
        (8, doubtful, "expired", 3008),
    ] {
        bench.open(session);
        bench.turn([identified(session, identity)]);
        let reader = &bench.outboxes[&session];
        let Some(Chunk::Bytes(frames)) = reader.try_recv() else {
            panic!("no answer");
        };
        assert_eq!(messages(&frames)[0]["code"], code);
        assert_eq!(bench.closed(session), Some(close));
    }
    bench.signed_in(9, &new, 0);
    // An older revocation of the same user changes nothing.
    bench.turn([control_message(REVOKED, 2, revoked("ada", moment - 9))]);
    assert_eq!(bench.closed(9), None);
}

#[test]
fn revocation_by_the_issuers_clock_spares_the_new_token() {
    let mut bench = secured();
    let expires = bench.expires_in(60);
    let time = expires - 60_000;
    let (old, new) = (holder("ada", "*", expires - 1), holder("ada", "*", expires));
    bench.signed_in(1, &old, 0);
    bench.signed_in(2, &new, 0);
    let action = ControlAction::Revoke(Cutoff::issued_before(time));
    bench.turn([control_message(
        REVOKED,
        1,
        control_publication("ada", action, 1),
    )]);
    let codes = [1, 2].map(|session| bench.closed(session));
    assert_eq!(codes, [Some(3500), None]);
    bench.signed_in(3, &new, 0);
    // A node of the former version publishes it again, and has kept the time alone.
    let data = RawValue::from_string(r#"{"do":"revoke","user":"ada"}"#.into()).unwrap();
    let again = Publication {
        user: None,
        time: time - 1,
        except: None,
        event: None,
        data: data.into(),
    };
    let requests = bench.turn([control_message(REVOKED, 2, Arc::new(again))]);
    assert!(requests.is_empty(), "{requests:?}");
    assert_eq!([2, 3].map(|session| bench.closed(session)), [None, None]);
}

#[test]
fn revocation_of_a_former_version_is_written_into_the_set() {
    let mut bench = secured();
    let moment = bench.now.unix_ms;
    let data = RawValue::from_string(r#"{"do":"revoke","user":"ada"}"#.into()).unwrap();
    let publication = Publication {
        user: None,
        time: moment,
        except: None,
        event: None,
        data: data.into(),
    };
    bench.turn([control_message(REVOKED, 1, Arc::new(publication))]);
    let writes = writes(bench.turn([Event::Tick]));
    let [write] = &writes[..] else {
        panic!("{writes:?}");
    };
    assert_eq!(write.cutoffs, [(user("ada"), Cutoff::at(moment))]);
    // All nodes receive it, so it is not published again.
    let requests = bench.turn([written(write, &["ada"])]);
    assert!(publishes(requests).is_empty());
    // A revocation of this version is in the set before it is published.
    bench.turn([control_message(REVOKED, 2, revoked("bob", moment))]);
    assert!(bench.turn([Event::Tick]).is_empty());
}

#[test]
fn revocation_is_answered_after_the_set_and_the_notification_are_stored() {
    let mut bench = secured();
    let cutoff = Cutoff::at(bench.now.unix_ms);
    let mut revoke = || {
        let (user, action) = (user("ada"), ControlAction::Revoke(cutoff));
        let (event, answers) = call(Command::Control(Box::new(ControlCommand { user, action })));
        let wrote = writes(bench.turn([event]));
        assert_eq!(wrote[0].cutoffs.len(), 1);
        (wrote[0].clone(), answers)
    };
    let calls = [revoke(), revoke(), revoke()];
    let position = Position {
        epoch: Epoch::new(EPOCH),
        offset: 1,
    };
    let outcomes = [
        (Err(Refused::Full), None),
        (Ok(vec![]), Some(Err(Refused::Unavailable))),
        (Ok(vec![user("ada")]), Some(Ok(position))),
    ];
    for ((write, answers), (result, published)) in calls.into_iter().zip(outcomes) {
        let is_done = published == Some(Ok(position));
        let ticket = write.ticket;
        let requests = bench.turn([Event::Broker(BrokerEvent::Revoked { ticket, result })]);
        let publishes = publishes(requests);
        assert_eq!(publishes.len(), usize::from(published.is_some()));
        for (publish, result) in publishes.iter().zip(published) {
            assert!(answers.is_empty(), "not before it is published");
            let ticket = publish.ticket;
            bench.turn([Event::Broker(BrokerEvent::Published { ticket, result })]);
        }
        let answer = answers.try_recv().expect("an answer");
        assert_eq!(answer.is_ok(), is_done);
    }
    assert!(bench.dispatcher.load().is_idle());
}

#[test]
fn tokens_are_refused_until_the_node_has_read_the_revocations() {
    let mut bench = Bench::behind();
    let expires = bench.expires_in(60);
    let ada = holder("ada", "*", expires);
    bench.open(1);
    bench.turn([identified(1, ada.clone())]);
    assert_eq!(bench.received(1)[0]["code"], "unavailable");
    let requests = bench.turn([following(REVOKED)]);
    let ticket = read_ticket(&requests);
    // The read fails and is repeated.
    let result = Err(Refused::Unavailable);
    bench.turn([Event::Broker(BrokerEvent::Page { ticket, result })]);
    assert!(!bench.dispatcher.has_revocations());
    let ticket = read_ticket(&bench.turn([Event::Tick]));
    // More than a page: the first is not the end.
    let top = Position {
        epoch: Epoch::new(EPOCH),
        offset: 2,
    };
    let result = Ok(Page {
        top,
        first: 1,
        ends: Ends::default(),
        expires_in: std::time::Duration::from_secs(60),
        messages: vec![(1, revoked("eve", expires))],
    });
    let requests = bench.turn([Event::Broker(BrokerEvent::Page { ticket, result })]);
    let result = Ok(Page {
        top,
        first: 1,
        ends: Ends::default(),
        expires_in: std::time::Duration::from_secs(60),
        messages: vec![(2, revoked("ada", expires))],
    });
    let ticket = read_ticket(&requests);
    let requests = bench.turn([Event::Broker(BrokerEvent::Page { ticket, result })]);
    assert!(!bench.dispatcher.has_revocations(), "the set is not read");
    // A revocation that only the log has, from a former version, is written into the set.
    let cutoff = Cutoff::at(expires);
    let in_set = [("eve", cutoff), ("zoe", cutoff)];
    let requests = bench.turn([stored(&requests, &in_set)]);
    assert!(bench.dispatcher.has_revocations());
    let writes = writes(requests);
    assert_eq!(writes[0].cutoffs, [(user("ada"), cutoff)]);
    for (session, name) in [(1, "ada"), (2, "zoe")] {
        if session > 1 {
            bench.open(session);
        }
        bench.turn([identified(session, holder(name, "*", expires))]);
        assert_eq!(bench.closed(session), Some(3500), "{name}");
    }
    bench.signed_in(3, &holder("bob", "*", expires), 0);
}

/// A node that has read an empty log, and the requests of that turn: the set is read next.
fn starting() -> (Bench, Vec<Request>) {
    let mut bench = Bench::behind();
    let ticket = read_ticket(&bench.turn([following(REVOKED)]));
    let requests = bench.turn([log(ticket, EPOCH, vec![])]);
    (bench, requests)
}

impl Bench {
    fn passes(&mut self, millis: u64) -> Vec<Request> {
        self.now.instant += Duration::from_millis(millis);
        self.now.unix_ms += millis;
        self.turn([Event::Tick])
    }
}

#[test]
fn starting_node_waits_until_the_others_have_confirmed() {
    let (mut bench, requests) = starting();
    let is_starting = |requests: &[Request]| {
        requests.iter().any(|request| match request {
            Request::Log(LogRequest::ReadRevocations(read)) => read.is_starting,
            _ => false,
        })
    };
    assert!(is_starting(&requests));
    bench.turn([stored_as(&requests, &[], false, 1)]);
    let requests = bench.passes(3_000);
    assert!(is_starting(&requests), "it reads again");
    let requests = bench.turn([stored_as(&requests, &[], false, 1)]);
    assert!(!bench.dispatcher.has_revocations(), "{requests:?}");
    let requests = bench.passes(1_000);
    let cutoff = Cutoff::at(bench.now.unix_ms);
    let requests = bench.turn([stored_as(&requests, &[("ada", cutoff)], true, 0)]);
    assert!(bench.dispatcher.has_revocations());
    assert!(writes(requests).is_empty(), "it is confirmed");
}

#[test]
fn starting_node_confirms_by_force_after_ten_seconds() {
    let (mut bench, mut requests) = starting();
    for _ in 0..10 {
        bench.turn([stored_as(&requests, &[], false, 1)]);
        assert!(!bench.dispatcher.has_revocations());
        requests = bench.passes(1_000);
    }
    let writes = writes(bench.turn([stored_as(&requests, &[], false, 1)]));
    assert!(bench.dispatcher.has_revocations());
    let confirm = writes[0].confirm.as_ref().unwrap();
    assert_eq!((&*confirm.data_set, confirm.force), ("id", true));
}

#[test]
fn starting_node_without_others_waits_two_seconds_for_lost_leases() {
    let (mut bench, requests) = starting();
    bench.turn([stored_as(&requests, &[], false, 0)]);
    let requests = bench.passes(1_999);
    bench.turn([stored_as(&requests, &[], false, 0)]);
    assert!(!bench.dispatcher.has_revocations());
    let requests = bench.passes(250);
    let writes = writes(bench.turn([stored_as(&requests, &[], false, 0)]));
    assert!(bench.dispatcher.has_revocations());
    assert!(!writes[0].confirm.as_ref().unwrap().force);
}

#[test]
fn lost_revocations_are_written_back_confirmed_and_published_again() {
    let mut bench = secured();
    let expires = bench.expires_in(60);
    let cutoffs = [("ada", 1), ("bob", 2)].map(|(name, after)| {
        let cutoff = Cutoff::at(bench.now.unix_ms + after);
        (name, cutoff)
    });
    for (offset, (name, cutoff)) in (1..).zip(cutoffs) {
        let publication = control_publication(name, ControlAction::Revoke(cutoff), 1);
        bench.turn([control_message(REVOKED, offset, publication)]);
    }
    let requests = bench.turn([Event::Broker(BrokerEvent::DataSetChanged)]);
    let requests = bench.turn([stored_as(&requests, &[("zoe", cutoffs[0].1)], false, 0)]);
    assert!(
        bench.dispatcher.has_revocations(),
        "its own revocations still count"
    );
    let wrote = writes(requests);
    let [write] = &wrote[..] else {
        panic!("{wrote:?}");
    };
    assert_eq!(
        write.cutoffs,
        cutoffs.map(|(name, cutoff)| (user(name), cutoff))
    );
    assert_eq!(&*write.confirm.as_ref().unwrap().data_set, "id");
    // The node applies its own revocations meanwhile, and those that another node has written.
    for (session, name) in [(1, "ada"), (2, "zoe")] {
        bench.open(session);
        bench.turn([identified(session, holder(name, "*", expires))]);
        assert_eq!(bench.closed(session), Some(3500));
    }
    // The write fails and is repeated, once.
    let result = Err(Refused::Unavailable);
    let ticket = write.ticket;
    let requests = bench.turn([Event::Broker(BrokerEvent::Revoked { ticket, result })]);
    assert!(requests.is_empty());
    let wrote = writes(bench.turn([Event::Tick]));
    assert_eq!(
        (wrote[0].cutoffs.len(), wrote[0].confirm.is_some()),
        (2, true)
    );
    // Another node wrote Bob's revocation first, and publishes it.
    let again = publishes(bench.turn([written(&wrote[0], &["ada"])]));
    let [publish] = &again[..] else {
        panic!("{again:?}");
    };
    let command = ControlCommand::read(
        crate::model::control::ControlLog::Revocations,
        &publish.publish.publication,
    );
    assert_eq!(command.unwrap().action, ControlAction::Revoke(cutoffs[0].1));
    let published = |ticket, result| Event::Broker(BrokerEvent::Published { ticket, result });
    bench.turn([published(publish.ticket, Err(Refused::Unavailable))]);
    let once_more = publishes(bench.turn([Event::Tick]));
    let position = Position {
        epoch: Epoch::new(EPOCH),
        offset: 3,
    };
    bench.turn([published(once_more[0].ticket, Ok(position))]);
    assert!(bench.turn([Event::Tick]).is_empty());
    let load = bench.dispatcher.load();
    assert_eq!((load.commands, load.reads), (0, 0));
}

#[test]
fn revocation_set_is_compared_once_a_minute_and_after_each_resubscription() {
    let mut bench = secured();
    let requests = bench.passes(61_000);
    bench.signed_in(1, &holder("ada", "*", bench.expires_in(60)), 0);
    let cutoff = Cutoff::at(bench.now.unix_ms);
    let requests = bench.turn([stored(&requests, &[("ada", cutoff)])]);
    assert!(writes(requests).is_empty());
    assert_eq!(bench.closed(1), Some(3500), "the notification was missed");
    let mut requests = bench.turn([following(REVOKED)]);
    requests.extend(bench.turn([Event::Tick]));
    bench.turn([stored(&requests, &[("ada", cutoff)])]);
}

#[test]
fn control_commands_apply_to_the_users_sessions_and_not_retroactively() {
    let mut bench = secured();
    let expires = bench.expires_in(60);
    for (session, user) in [(1, "ada"), (2, "ada"), (3, "bob")] {
        bench.signed_in(session, &holder(user, "*", expires), 0);
    }
    // The first read returns only the position of the log.
    let ticket = read_ticket(&bench.turn([following("$control")]));
    bench.turn([log(
        ticket,
        EPOCH,
        vec![control_publication("ada", ControlAction::Disconnect, 1)],
    )]);
    assert_eq!(bench.closed(1), None);
    bench.turn([join(2, "lobby")]);
    let ticket = read_ticket(&bench.turn([following("lobby")]));
    bench.turn([page(ticket, 7, 8, vec![])]);
    bench.received(2);
    let lobby = || name("lobby");
    bench.turn([control_message(
        "$control",
        2,
        control_publication("ada", ControlAction::Join(lobby()), 1),
    )]);
    let received = bench.received(1);
    assert_eq!(
        (
            &received[0]["type"],
            &received[0]["id"],
            &received[0]["room"],
            &received[0]["offset"]
        ),
        (&json!("ok"), &json!(null), &json!("lobby"), &json!(7))
    );
    assert!(bench.received(2).is_empty(), "it is a member already");
    bench.turn([message("lobby", 8, "hi")]);
    assert_eq!((bench.offsets(1), bench.offsets(3)), (vec![8], vec![]));
    bench.turn([control_message(
        "$control",
        3,
        control_publication("ada", ControlAction::Leave(lobby()), 1),
    )]);
    for session in [1, 2] {
        let received = bench.received(session);
        let last = received.last().unwrap();
        assert_eq!(
            (&last["type"], &last["code"]),
            (&json!("removed"), &json!("removed"))
        );
    }
    bench.turn([control_message(
        "$control",
        4,
        control_publication("ada", ControlAction::Disconnect, 1),
    )]);
    let codes = [1, 2, 3].map(|session| bench.closed(session));
    assert_eq!(codes, [Some(3007), Some(3007), None]);
    bench.signed_in(4, &holder("ada", "*", expires), 0);
}

#[test]
fn control_commands_behind_a_hole_are_read_and_applied_in_order() {
    let mut bench = secured();
    bench.signed_in(1, &holder("ada", "*", bench.expires_in(60)), 0);
    let ticket = read_ticket(&bench.turn([following("$control")]));
    bench.turn([log(ticket, EPOCH, vec![])]);
    let leave = control_publication("ada", ControlAction::Leave(name("lobby")), 1);
    let requests = bench.turn([control_message("$control", 2, leave.clone())]);
    assert!(bench.received(1).is_empty());
    let ticket = read_ticket(&requests);
    let come = control_publication("ada", ControlAction::Join(name("lobby")), 1);
    let requests = bench.turn([log(ticket, EPOCH, vec![come, leave])]);
    assert!(
        matches!(
            &requests[..],
            [
                Request::Log(LogRequest::Follow(_)),
                Request::Log(LogRequest::Unfollow(_))
            ]
        ),
        "{requests:?}"
    );
    assert_eq!(bench.received(1)[0]["type"], "removed");
    // It is compared once a minute, without any message.
    bench.now.instant += Duration::from_secs(61);
    let reads = bench.turn([Event::Tick]);
    let reads = reads.iter().filter(|request| match request {
        Request::Log(LogRequest::Read(read)) => read.room.is_the_nodes(),
        _ => false,
    });
    assert_eq!(reads.count(), 2);
}

#[test]
fn control_join_respects_the_room_limit_of_a_session() {
    let mut bench = secured();
    bench.dispatcher.turn.settings.rooms_per_session = 1;
    bench.signed_in(1, &holder("ada", "*", bench.expires_in(60)), 0);
    bench.turn([join(1, "a")]);
    let ticket = read_ticket(&bench.turn([following("$control")]));
    bench.turn([log(ticket, EPOCH, vec![])]);
    let come = control_publication("ada", ControlAction::Join(name("lobby")), 1);
    assert!(
        bench
            .turn([control_message("$control", 1, come)])
            .is_empty()
    );
}
