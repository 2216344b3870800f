//! The state machine of topics step by step, and against a naive model.

use std::collections::HashSet;

use super::*;

fn room(name: &str) -> RoomName {
    RoomName::new(name).unwrap()
}

fn topics() -> (Topics, RoomName, Instant) {
    (
        Topics::new(Duration::from_secs(5)),
        room("lobby"),
        Instant::now(),
    )
}

#[test]
fn follow_is_sent_once_and_confirmed() {
    let (mut topics, lobby, now) = topics();
    assert!(!topics.follow(&lobby));
    assert_eq!(topics.followed("lobby"), None);
    assert_eq!(
        topics.next_request(10),
        Some(SubscriptionRequest::Subscribe(vec![lobby.clone()]))
    );
    assert_eq!(topics.next_request(10), None);
    assert_eq!(topics.subscribed("lobby", now), Some(lobby.clone()));
    assert_eq!(topics.subscribed("lobby", now), None, "reported once");
    assert_eq!(topics.followed("lobby"), Some(&lobby));
}

#[test]
fn topic_lingers_and_is_followed_again_without_a_request() {
    let (mut topics, lobby, now) = topics();
    topics.follow(&lobby);
    topics.next_request(1);
    topics.subscribed("lobby", now);
    topics.unfollow(&lobby, now);
    assert_eq!(topics.followed("lobby"), None, "it has no members");
    topics.tick(now + Duration::from_secs(4));
    assert_eq!(topics.next_request(1), None);
    assert!(topics.follow(&lobby), "it is subscribed still");
    topics.tick(now + Duration::from_secs(6));
    assert_eq!(
        topics.next_request(1),
        None,
        "the old linger does not count"
    );
    topics.unfollow(&lobby, now + Duration::from_secs(6));
    topics.tick(now + Duration::from_secs(11));
    assert_eq!(
        topics.next_request(1),
        Some(SubscriptionRequest::Unsubscribe(vec![lobby.clone()]))
    );
    assert!(!topics.follow(&lobby), "the request is in flight");
    assert_eq!(topics.next_request(1), None, "one request at a time");
    topics.unsubscribed("lobby");
    assert_eq!(
        topics.next_request(1),
        Some(SubscriptionRequest::Subscribe(vec![lobby]))
    );
}

#[test]
fn loss_resubscribes_only_wanted_topics() {
    let (mut topics, lobby, now) = topics();
    let (away, gone) = (room("away"), room("gone"));
    for name in [&lobby, &away, &gone] {
        topics.follow(name);
    }
    topics.next_request(2);
    topics.subscribed("lobby", now);
    topics.subscribed("away", now);
    topics.unfollow(&away, now);
    topics.unfollow(&gone, now);
    topics.lost();
    assert_eq!(
        topics.next_request(10),
        Some(SubscriptionRequest::Subscribe(vec![lobby]))
    );
    assert_eq!(topics.next_request(10), None);
    assert!(topics.topics.len() == 1);
}

/// The naive model: the subscriptions of Redis, the wanted rooms, and the request in flight.
#[derive(Default)]
struct Model {
    subscribed: HashSet<String>,
    wanted: HashSet<String>,
    /// Follows without a `Following` yet.
    waiting: HashSet<String>,
    in_flight: Option<(bool, VecDeque<RoomName>)>,
}

#[test]
fn random_operations_agree_with_a_naive_model() {
    for seed in 0..300 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut now = Instant::now();
        let mut topics = Topics::new(Duration::from_millis(50));
        let mut model = Model::default();
        for _ in 0..400 {
            now += Duration::from_millis(random.u64(0..20));
            step(&mut topics, &mut model, &mut random, now, seed);
        }
        // At rest: all requests are confirmed and no linger is left.
        for _ in 0..100 {
            now += Duration::from_millis(60);
            topics.tick(now);
            confirm_all(&mut topics, &mut model, now, seed);
            send(&mut topics, &mut model, 3);
        }
        confirm_all(&mut topics, &mut model, now, seed);
        assert_eq!(model.subscribed, model.wanted, "seed {seed}");
        assert!(model.waiting.is_empty(), "seed {seed}: {:?}", model.waiting);
        assert_eq!(topics.topics.len(), model.wanted.len(), "seed {seed}");
    }
}

fn step(
    topics: &mut Topics,
    model: &mut Model,
    random: &mut fastrand::Rng,
    now: Instant,
    seed: u64,
) {
    let name = format!("r{}", random.u8(0..6));
    match random.u8(0..12) {
        0..4 => {
            model.wanted.insert(name.clone());
            if topics.follow(&room(&name)) {
                assert!(model.subscribed.contains(&name), "seed {seed}: {name}");
                model.waiting.remove(&name);
            } else {
                model.waiting.insert(name);
            }
        }
        4..7 => {
            model.wanted.remove(&name);
            model.waiting.remove(&name);
            topics.unfollow(&room(&name), now);
        }
        7..9 => send(topics, model, random.usize(1..4)),
        9..11 => confirm(topics, model, now, seed),
        _ if random.u8(0..10) == 0 => {
            model.in_flight = None;
            model.subscribed.clear();
            topics.lost();
            model.waiting = model.wanted.clone();
        }
        _ => topics.tick(now),
    }
    for name in &model.subscribed {
        if topics.followed(name).is_some() {
            assert!(model.wanted.contains(name), "seed {seed}: {name}");
        }
    }
}

fn send(topics: &mut Topics, model: &mut Model, max: usize) {
    if model.in_flight.is_none() {
        model.in_flight = topics.next_request(max).map(|ask| match ask {
            SubscriptionRequest::Subscribe(rooms) => (true, rooms.into()),
            SubscriptionRequest::Unsubscribe(rooms) => (false, rooms.into()),
        });
    }
}

fn confirm(topics: &mut Topics, model: &mut Model, now: Instant, seed: u64) {
    let Some((subscribe, rooms)) = &mut model.in_flight else {
        return;
    };
    let Some(room) = rooms.pop_front() else {
        model.in_flight = None;
        return;
    };
    let name = room.as_str().to_owned();
    if *subscribe {
        assert!(model.subscribed.insert(name.clone()), "seed {seed}: twice");
        match topics.subscribed(&name, now) {
            Some(_) => assert!(model.waiting.remove(&name), "seed {seed}: {name}"),
            None => assert!(!model.wanted.contains(&name), "seed {seed}: {name}"),
        }
    } else {
        assert!(model.subscribed.remove(&name), "seed {seed}: not there");
        topics.unsubscribed(&name);
    }
}

fn confirm_all(topics: &mut Topics, model: &mut Model, now: Instant, seed: u64) {
    while model.in_flight.is_some() {
        confirm(topics, model, now, seed);
    }
}

#[test]
fn rooms_that_come_and_go_during_an_outage_leave_no_entries() {
    let now = Instant::now();
    let mut topics = Topics::new(Duration::from_secs(5));
    let kept = RoomName::new("kept").unwrap();
    topics.follow(&kept);
    for n in 0..10_000 {
        let room = RoomName::new(&format!("r{n}")).unwrap();
        topics.follow(&room);
        topics.unfollow(&room, now);
    }
    assert_eq!(topics.topics.len(), 1);
    assert!(
        topics.to_subscribe.len() < 200,
        "{}",
        topics.to_subscribe.len()
    );
    assert_eq!(
        topics.next_request(10),
        Some(SubscriptionRequest::Subscribe(vec![kept]))
    );
}

#[test]
fn oldest_of_too_many_lingers_ends_early() {
    let now = Instant::now();
    let mut topics = Topics::new(Duration::from_secs(3600));
    for n in 0..MAX_LINGERING + 5 {
        let room = RoomName::new(&format!("r{n}")).unwrap();
        topics.follow(&room);
        topics.next_request(1);
        topics.subscribed(room.as_str(), now);
        topics.unfollow(&room, now);
    }
    topics.tick(now);
    let Some(SubscriptionRequest::Unsubscribe(rooms)) = topics.next_request(100) else {
        panic!("nothing to end")
    };
    assert_eq!(rooms.len(), 5);
    assert_eq!(rooms[0].as_str(), "r0");
}
