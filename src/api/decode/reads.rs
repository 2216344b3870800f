//! Reads: messages, members, counts, rooms, a user's connections.

use super::{ApiRequest, bad, no_query, one, parameters, servers, session};
use crate::api::Call;
use crate::model::cluster_query::{ClusterQuery, PAGE_DEFAULT, PAGE_LIMIT, RoomKind};
use crate::model::id::{RoomName, RoomPrefix, UserName};
use crate::model::member::MembersQuery;
use crate::model::publication::{HistoryQuery, MAX_OFFSET};
use crate::protocol::{Command, CommandError, HISTORY_DEFAULT, HISTORY_LIMIT};

/// `GET /rooms/{room}/messages`
pub(crate) fn history(request: &ApiRequest<'_>) -> Result<Call, CommandError> {
    let room = request.room()?;
    let what = "the parameters are `before` and `limit`";
    let [before, limit] = parameters(request, ["before", "limit"], what)?;
    one(Command::History(HistoryQuery {
        room,
        before: before.as_deref().map(offset).transpose()?,
        limit: limited(limit.as_deref(), HISTORY_DEFAULT, HISTORY_LIMIT)?,
    }))
}

/// `GET /rooms/{room}/members`
pub(crate) fn members(request: &ApiRequest<'_>) -> Result<Call, CommandError> {
    let room = request.room()?;
    let [after, limit] = page(request)?;
    one(Command::Members(MembersQuery {
        room,
        after: after.as_deref().map(UserName::new).transpose()?,
        limit: limited(limit.as_deref(), PAGE_DEFAULT, PAGE_LIMIT)?,
    }))
}

/// `GET /rooms/{room}`
pub(crate) fn count(request: &ApiRequest<'_>) -> Result<Call, CommandError> {
    if request.query.is_some() {
        return Err(no_query());
    }
    query(ClusterQuery::Room(request.room()?))
}

/// `GET /rooms`
pub(crate) fn rooms(request: &ApiRequest<'_>) -> Result<Call, CommandError> {
    let what = "the parameters are `prefix`, `after` and `limit`";
    let [prefix, after, limit] = parameters(request, ["prefix", "after", "limit"], what)?;
    let prefix = prefix.as_deref().map(RoomPrefix::new).transpose()?;
    let kind = RoomKind::beginning_with(prefix.as_ref().map_or("", RoomPrefix::as_str));
    if kind == RoomKind::Server {
        return Err(servers());
    }
    query(ClusterQuery::Rooms {
        kind,
        prefix,
        after: after.as_deref().map(RoomName::new).transpose()?,
        limit: limited(limit.as_deref(), PAGE_DEFAULT, PAGE_LIMIT)?,
    })
}

/// `GET /users/{user}/connections`
pub(crate) fn connections(request: &ApiRequest<'_>) -> Result<Call, CommandError> {
    let user = request.user()?;
    let [after, limit] = page(request)?;
    let after = after.as_deref().map(|name| session("after", name));
    query(ClusterQuery::Connections {
        user,
        after: after.transpose()?,
        limit: limited(limit.as_deref(), PAGE_DEFAULT, PAGE_LIMIT)?,
    })
}

fn query(query: ClusterQuery) -> Result<Call, CommandError> {
    one(Command::ClusterQuery(Box::new(query)))
}

fn page<'a>(
    request: &'a ApiRequest<'_>,
) -> Result<[Option<std::borrow::Cow<'a, str>>; 2], CommandError> {
    let what = "the parameters are `after` and `limit`";
    parameters(request, ["after", "limit"], what)
}

fn limited(digits: Option<&str>, default: usize, most: usize) -> Result<usize, CommandError> {
    let limit = digits.map(|digits| whole("limit", digits)).transpose()?;
    let limit = limit.map_or(default, |it| usize::try_from(it).unwrap_or(usize::MAX));
    if !(1..=most).contains(&limit) {
        return Err(bad(format!("`limit` must lie between 1 and {most}")));
    }
    Ok(limit)
}

fn offset(digits: &str) -> Result<u64, CommandError> {
    match whole("before", digits)? {
        offset @ ..=MAX_OFFSET => Ok(offset),
        _ => Err(bad("`before` must be at most 2^53")),
    }
}

fn whole(name: &str, digits: &str) -> Result<u64, CommandError> {
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let number = digits.parse().ok().filter(|_| plain);
    number.ok_or_else(|| bad(format!("`{name}` must be a whole number")))
}
