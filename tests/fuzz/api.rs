//! A request to the HTTP API without its head: `METHOD PATH?QUERY`, a line end, and the body. It is
//! accepted or refused with a reason of bounded length, and every accepted request is answered,
//! whatever reply the dispatcher gives.

use switchboard::api::{self, ApiRequest, RouteMatch};
use switchboard::http::Method;
use switchboard::protocol::Command;

pub fn any_call(input: &[u8]) {
    let end = input.iter().position(|byte| *byte == b'\n');
    let (line, body) = input.split_at(end.unwrap_or(input.len()));
    let Ok(line) = std::str::from_utf8(line) else {
        return;
    };
    let (method, target) = line.split_once(' ').unwrap_or(("POST", line));
    let method = match method {
        "GET" => Method::GET,
        "PUT" => Method::PUT,
        "DELETE" => Method::DELETE,
        _ => Method::POST,
    };
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    };
    let segments: Vec<String> = path.split('/').skip(1).map(str::to_owned).collect();
    let RouteMatch::Route(route, path_values) = api::find(&method, &segments) else {
        return;
    };
    let request = ApiRequest {
        path_values: path_values.into_iter().map(Into::into).collect(),
        query: query.map(Into::into),
        body,
        depth: 64,
        unix_ms: 1,
    };
    match route.read(&request) {
        Ok(call) => answer(call),
        Err(error) => assert!(error.reason.len() < 1024, "{error:?}"),
    }
}

/// The first command gets no reply; the others get one.
fn answer(call: api::Call) {
    let (commands, mut waiting) = call.into_parts();
    assert!((1..=api::COMMANDS_PER_CALL).contains(&commands.len()));
    let reads = |command: &Command| {
        matches!(
            command,
            Command::History(_) | Command::Members(_) | Command::ClusterQuery(_)
        )
    };
    let changes = !reads(&commands[0]);
    for place in 0..commands.len() {
        waiting.sent(place);
        if place > 0 {
            waiting.put(place, Ok("{}".into()));
        }
    }
    let silence = if changes { 504 } else { 503 };
    let wanted = if commands.len() > 1 { 200 } else { silence };
    let response = waiting.response();
    assert_eq!(response.status.as_u16(), wanted);
    let json: Result<serde_json::Value, _> = serde_json::from_slice(&response.body);
    assert!(json.is_ok(), "{response:?}");
}
