//! Reads of members that must wait for presence hold up no other read.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use switchboard::broker::{
    BrokerEvent, MemberPage, MembersQuery, MembersRequest, PresenceRequest, Refused, Request,
    Source,
};
use switchboard::model::id::Ticket;

use super::node::{BrokerNode, SHORT_LEASE, name};
use crate::support::redis_server::RedisServer;
use crate::support::{DEADLINE, GLANCE};

/// Deletes all leases and their announcements again and again, so that the lists of members never
/// count as complete.
struct Saboteur {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Saboteur {
    fn start(server: &RedisServer) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (is_over, url) = (stop.clone(), server.url());
        let thread = thread::spawn(move || {
            let client = redis::Client::open(url).expect("an address");
            let mut connection = client.get_connection().expect("it is up");
            while !is_over.load(Ordering::SeqCst) {
                let delete = redis::cmd("DEL")
                    .arg(&["sb:nodes", "sb:nodes:formats"])
                    .to_owned();
                delete.query::<()>(&mut connection).expect("it is up");
                thread::sleep(SHORT_LEASE / 20);
            }
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }

    fn stop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("it only deletes");
        }
    }
}

impl Drop for Saboteur {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

fn ask_members(node: &mut BrokerNode) -> Ticket {
    node.ask(|ticket| {
        Request::Presence(PresenceRequest::Members(MembersRequest {
            ticket,
            source: Source::Node,
            query: MembersQuery {
                room: name("lobby"),
                after: None,
                limit: 10,
            },
        }))
    })
}

fn members(node: &mut BrokerNode, asked: Ticket) -> Result<MemberPage, Refused> {
    node.wait("page of members", |event| match event {
        BrokerEvent::MemberPage { ticket, result } if *ticket == asked => Some(result.clone()),
        _ => None,
    })
}

#[test]
fn reads_of_logs_do_not_wait_for_a_read_of_members() {
    let server = RedisServer::start();
    let mut node = BrokerNode::on_with(&server, |settings| {
        settings.publish_timeout = Duration::from_secs(8);
    });
    let mut saboteur = Saboteur::start(&server);
    // The first may still be answered, before the node has detected the loss.
    let (start, mut parked) = (Instant::now(), ask_members(&mut node));
    while node.metrics.redis_reads_parked.get() == 0 {
        assert!(start.elapsed() < DEADLINE, "no read is parked");
        // Others than the answer may come while the read is being parked.
        let answer = node.rest().into_iter().find_map(|event| match event {
            BrokerEvent::MemberPage { result, .. } => Some(result),
            _ => None,
        });
        match answer {
            Some(result) => {
                result.expect("a page");
                parked = ask_members(&mut node);
            }
            None => thread::sleep(GLANCE),
        }
    }
    // One after the other: each would have to wait as long as the read of members.
    for _ in 0..10 {
        node.top("lobby");
    }
    let answered = node.rest().into_iter();
    let answered: Vec<_> = answered
        .filter(|event| matches!(event, BrokerEvent::MemberPage { .. }))
        .collect();
    assert!(answered.is_empty(), "it still waits: {answered:?}");
    assert_eq!(members(&mut node, parked).unwrap_err(), Refused::Incomplete);
    saboteur.stop();
    let start = Instant::now();
    let page = loop {
        let asked = ask_members(&mut node);
        match members(&mut node, asked) {
            Ok(page) => break page,
            Err(why) => assert_eq!(why, Refused::Incomplete),
        }
        assert!(start.elapsed() < DEADLINE, "no read of members is answered");
    };
    assert_eq!(page.count, 0);
}
