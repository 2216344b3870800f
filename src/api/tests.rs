//! Tests of requests, answers and API keys, by subject; in this file the table of routes, compared
//! with the API description.

mod answer;
mod decode;
mod gate;

use serde_json::Value;

use super::*;
use crate::api::routes::ROUTES;
use crate::http::{Method, Response};
use crate::model::publication::Publish;

const DELETE: Method = Method::DELETE;
const GET: Method = Method::GET;
const HEAD: Method = Method::HEAD;
const OPTIONS: Method = Method::OPTIONS;
const POST: Method = Method::POST;
const PUT: Method = Method::PUT;

const KEY: &str = "0123456789abcdef0123456789abcdef";

fn api_request<'a>(
    path_values: &[&'a str],
    query: Option<&'a str>,
    body: &'a str,
) -> ApiRequest<'a> {
    ApiRequest {
        path_values: path_values.iter().map(|value| (*value).into()).collect(),
        query: query.map(Into::into),
        body: body.as_bytes(),
        depth: 64,
        unix_ms: 1_764_000_000_123,
    }
}

/// The segments of a path without escapes.
fn segments(path: &str) -> Vec<String> {
    path.split('/').skip(1).map(str::to_owned).collect()
}

/// Decodes a request with its route.
fn read(
    method: Method,
    path: &str,
    query: Option<&str>,
    body: &str,
) -> Result<Vec<Command>, CommandError> {
    let segments = segments(path);
    let RouteMatch::Route(route, path_values) = find(&method, &segments) else {
        panic!("{path} is no route");
    };
    let call = route.read(&api_request(&path_values, query, body))?;
    Ok(call.into_parts().0)
}

fn publishes(commands: &[Command]) -> Vec<&Publish> {
    let publish = |command: &'_ Command| matches!(command, Command::Publish(_));
    assert!(commands.iter().all(publish), "{commands:?}");
    let publishes = commands.iter().filter_map(|command| match command {
        Command::Publish(publish) => Some(&**publish),
        _ => None,
    });
    publishes.collect()
}

fn body(response: &Response) -> Value {
    serde_json::from_slice(&response.body).unwrap()
}

#[test]
fn paths_map_to_routes_methods_or_nothing() {
    let table = [
        (POST, "/rooms/a/messages", "/rooms/{room}/messages a"),
        (GET, "/rooms/a/messages", "/rooms/{room}/messages a"),
        (HEAD, "/rooms/a/messages", "/rooms/{room}/messages a"),
        (
            PUT,
            "/rooms/a/messages/k 1",
            "/rooms/{room}/messages/{key} a k 1",
        ),
        (GET, "/rooms", "/rooms"),
        (GET, "/rooms/a", "/rooms/{room} a"),
        (GET, "/rooms/a/members", "/rooms/{room}/members a"),
        (POST, "/messages", "/messages"),
        (POST, "/batch", "/batch"),
        (
            DELETE,
            "/users/ada/connections",
            "/users/{user}/connections ada",
        ),
        (
            GET,
            "/users/ada/connections",
            "/users/{user}/connections ada",
        ),
        (
            PUT,
            "/users/ada/rooms/a",
            "/users/{user}/rooms/{room} ada a",
        ),
        (
            DELETE,
            "/users/ada/rooms/a",
            "/users/{user}/rooms/{room} ada a",
        ),
        (GET, "/users/ada/rooms/a", "allow PUT, DELETE"),
        (GET, "/users//connections", "nothing"),
        (DELETE, "/rooms/a/messages", "allow POST, GET, HEAD"),
        (OPTIONS, "/batch", "allow POST"),
        (GET, "/rooms/a/messages/k", "allow PUT"),
        (GET, "/metrics", "metrics"),
        (HEAD, "/metrics", "metrics"),
        (POST, "/metrics", "allow GET, HEAD"),
        (GET, "/", "nothing"),
        (GET, "/rooms/", "nothing"),
        (POST, "/rooms", "allow GET, HEAD"),
        (DELETE, "/rooms/a", "allow GET, HEAD"),
        (PUT, "/users/ada/connections", "allow GET, HEAD, DELETE"),
        (POST, "/rooms//messages", "nothing"),
        (PUT, "/rooms/a/messages/", "nothing"),
        (POST, "/rooms/a/messages/k/l", "nothing"),
        (POST, "//messages", "nothing"),
        (POST, "/batch/", "nothing"),
        (POST, "/Batch", "nothing"),
    ];
    for (method, path, wanted) in table {
        let segments = segments(path);
        let found = match find(&method, &segments) {
            RouteMatch::Route(route, path_values) => {
                [vec![route.path], path_values].concat().join(" ")
            }
            RouteMatch::Metrics => "metrics".into(),
            RouteMatch::MethodNotAllowed(allow) => format!("allow {allow}"),
            RouteMatch::NotFound => "nothing".into(),
        };
        assert_eq!(found, wanted, "{method:?} {path}");
    }
}

#[test]
fn routes_are_those_of_the_api_description() {
    let description = include_str!("../../docs/openapi.yaml");
    let (_, paths) = description.split_once("\npaths:\n").unwrap();
    let (paths, _) = paths.split_once("\ncomponents:\n").unwrap();
    let (mut described, mut path) = (Vec::new(), "");
    for line in paths.lines().filter_map(|line| line.strip_suffix(':')) {
        match line.strip_prefix("    ").unwrap_or(line) {
            _ if line.starts_with("  /") => path = line.trim(),
            method @ ("get" | "post" | "put" | "delete" | "options" | "head") => {
                described.push(format!("{} {path}", method.to_uppercase()));
            }
            _ => {}
        }
    }
    let routes = ROUTES.iter().map(|route| (&route.method, route.path));
    let offered = routes.chain([(&GET, METRICS_PATH)]);
    let mut offered: Vec<_> = offered
        .map(|(method, path)| format!("{} {path}", method.as_str()))
        .collect();
    described.sort();
    offered.sort();
    assert_eq!(described, offered);
}
