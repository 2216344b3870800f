//! What the API offers, in one table: a new endpoint is a row here, a function in `decode` and a
//! path in `docs/openapi.yaml`, which a test holds against the table.

use super::decode::{Asked, publishes, reads, users};
use super::{Call, METRICS_PATH};
use crate::http::Method;
use crate::protocol::CommandError;

/// One row of the table.
#[derive(Debug)]
pub struct Route {
    pub method: Method,
    /// Segments in braces stand for any text that is not empty and are handed on in order.
    pub path: &'static str,
    pub(super) read: fn(&Asked<'_>) -> Result<Call, CommandError>,
}

/// Every method and path of the API. A GET answers HEAD too.
pub const ROUTES: [Route; 12] = [
    Route {
        method: Method::Post,
        path: "/rooms/{room}/messages",
        read: publishes::publish,
    },
    Route {
        method: Method::Get,
        path: "/rooms/{room}/messages",
        read: reads::history,
    },
    Route {
        method: Method::Put,
        path: "/rooms/{room}/messages/{key}",
        read: publishes::publish_with_key,
    },
    Route {
        method: Method::Get,
        path: "/rooms",
        read: reads::rooms,
    },
    Route {
        method: Method::Get,
        path: "/rooms/{room}",
        read: reads::count,
    },
    Route {
        method: Method::Get,
        path: "/rooms/{room}/members",
        read: reads::members,
    },
    Route {
        method: Method::Post,
        path: "/messages",
        read: publishes::publish_to_many,
    },
    Route {
        method: Method::Post,
        path: "/batch",
        read: publishes::batch,
    },
    Route {
        method: Method::Get,
        path: "/users/{user}/connections",
        read: reads::connections,
    },
    Route {
        method: Method::Delete,
        path: "/users/{user}/connections",
        read: users::disconnect,
    },
    Route {
        method: Method::Put,
        path: "/users/{user}/rooms/{room}",
        read: users::join,
    },
    Route {
        method: Method::Delete,
        path: "/users/{user}/rooms/{room}",
        read: users::leave,
    },
];

/// What a method and a path mean to the API.
#[derive(Debug)]
pub enum Found<'a> {
    /// A call, with what its path holds.
    Route(&'static Route, Vec<&'a str>),
    Metrics,
    /// Nothing but other methods; the value of `Allow`.
    Otherwise(String),
    /// No path of the API.
    Nothing,
}

/// Looks a decoded path up.
pub fn find(method: Method, path: &str) -> Found<'_> {
    let asked = match method {
        Method::Head => Method::Get,
        method => method,
    };
    if path == METRICS_PATH {
        return match asked {
            Method::Get => Found::Metrics,
            _ => Found::Otherwise(allow([Method::Get])),
        };
    }
    let fitting = ROUTES.iter().filter_map(|route| {
        let held = held(route.path, path)?;
        Some((route, held))
    });
    let mut others = Vec::new();
    for (route, held) in fitting {
        if route.method == asked {
            return Found::Route(route, held);
        }
        others.push(route.method);
    }
    match others.is_empty() {
        true => Found::Nothing,
        false => Found::Otherwise(allow(others)),
    }
}

/// What stands for the segments in braces, if the path fits the pattern.
fn held<'a>(pattern: &str, path: &'a str) -> Option<Vec<&'a str>> {
    let mut held = Vec::new();
    let mut segments = path.split('/');
    for wanted in pattern.split('/') {
        let segment = segments.next()?;
        if !wanted.starts_with('{') {
            if wanted != segment {
                return None;
            }
        } else if segment.is_empty() {
            return None;
        } else {
            held.push(segment);
        }
    }
    segments.next().is_none().then_some(held)
}

fn allow(methods: impl IntoIterator<Item = Method>) -> String {
    let names = methods.into_iter().map(|method| match method {
        Method::Get => "GET, HEAD",
        method => method.as_str(),
    });
    names.collect::<Vec<_>>().join(", ")
}
