//! Replies of Redis, from their bytes (RESP) to the results of the broker: pages are contiguous and
//! ascending, and offsets are within the range of a script.

use std::sync::Arc;

use switchboard::broker::redis::answers::decode;
use switchboard::broker::redis::request::{Completion, RedisRequest};
use switchboard::broker::redis::wire;
use switchboard::broker::redis::wire::Format;
use switchboard::broker::{
    BrokerEvent, ClusterRequest, MembersQuery, MembersRequest, Publish, PublishRequest, Range,
    Read, Source,
};
use switchboard::model::cluster_query::{ClusterQuery, QueryResult, RoomKind};
use switchboard::model::id::{Epoch, Position, RoomName, Ticket, UserName};

pub fn any_answer(input: &[u8]) {
    let Ok(answer) = redis::parse_redis_value(input) else {
        return;
    };
    let room = RoomName::new("room").expect("a name");
    let read = |range| {
        RedisRequest::Read(Read {
            ticket: Ticket(1),
            source: Source::Node,
            room: room.clone(),
            range,
            limit: 10,
        })
    };
    let since = Position {
        epoch: Epoch::new(42),
        offset: 4,
    };
    let publish = RedisRequest::Publish(PublishRequest {
        ticket: Ticket(2),
        source: Source::Node,
        publish: Publish {
            room: room.clone(),
            key: None,
            condition: None,
            ephemeral: false,
            others: false,
            publication: Arc::new(wire::unreadable()),
        },
    });
    let query = |query| {
        RedisRequest::ClusterQuery(ClusterRequest {
            ticket: Ticket(4),
            source: Source::Node,
            query,
        })
    };
    let jobs = [
        RedisRequest::Probe,
        query(ClusterQuery::Room(room.clone())),
        query(ClusterQuery::Rooms {
            kind: RoomKind::Chosen,
            prefix: None,
            after: None,
            limit: 10,
        }),
        query(ClusterQuery::Connections {
            user: UserName::new("ada").expect("a name"),
            after: None,
            limit: 10,
        }),
        publish,
        read(Range::Top),
        read(Range::After(since)),
        read(Range::Before(None)),
        RedisRequest::Members(MembersRequest {
            ticket: Ticket(3),
            source: Source::Node,
            query: MembersQuery {
                room: room.clone(),
                after: None,
                limit: 10,
            },
        }),
    ];
    for job in jobs {
        let Ok((completion, junk)) = decode(&job, answer.clone(), Format::NEWEST) else {
            continue;
        };
        match completion.and_then(Completion::event) {
            Some(BrokerEvent::Page { result, .. }) => {
                let page = result.expect("a page");
                assert!(page.top.offset <= wire::MAX_OFFSET && page.top.epoch != Epoch::UNKNOWN);
                let contiguous = |pair: &[(u64, _)]| pair[0].0 + 1 == pair[1].0;
                assert!(page.messages.windows(2).all(contiguous));
                assert!(junk <= input.len());
            }
            Some(BrokerEvent::Published { result, .. }) => {
                assert!(result.is_ok_and(|position| position.offset <= wire::MAX_OFFSET));
            }
            Some(BrokerEvent::MemberPage { result, .. }) => {
                let page = result.expect("a page");
                assert!(page.version <= wire::MAX_OFFSET && junk <= 1001 + input.len());
                assert!(page.members.iter().all(|member| member.connections > 0));
            }
            Some(BrokerEvent::QueryResult { result, .. }) => {
                assert!(junk <= 1001 + input.len());
                if let QueryResult::Room(count, position) = result.expect("a finding") {
                    assert!(count.connections <= wire::MAX_OFFSET);
                    assert!(position.is_none_or(|it| it.epoch != Epoch::UNKNOWN));
                }
            }
            _ => assert!(matches!(job, RedisRequest::Probe)),
        }
    }
}
