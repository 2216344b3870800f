//! The endpoints of the API, in one table: a new endpoint is a row here, a function in `decode` and
//! a path in `docs/openapi.yaml`, which a test compares with the table.

use super::decode::{ApiRequest, publishes, reads, users};
use super::{Call, METRICS_PATH};
use crate::http::Method;
use crate::protocol::CommandError;

/// One row of the table.
#[derive(Debug)]
pub struct Route {
    pub method: Method,
    /// Segments in braces are parameters: they match any text that is not empty.
    pub path: &'static str,
    read: fn(&ApiRequest<'_>) -> Result<Call, CommandError>,
}

impl Route {
    /// Decodes a request to this route.
    ///
    /// # Errors
    /// [`Code::BadRequest`](crate::protocol::Code::BadRequest) with a sentence that names the
    /// mistake, [`Code::Forbidden`](crate::protocol::Code::Forbidden) for the server's own rooms.
    pub fn read(&self, request: &ApiRequest<'_>) -> Result<Call, CommandError> {
        let parameters = segments(self.path).filter_map(parameter);
        (self.read)(&request.with_names_of_query(parameters)?)
    }
}

/// Every method and path of the API. A GET route also answers HEAD.
pub(crate) static ROUTES: [Route; 12] = [
    Route {
        method: Method::POST,
        path: "/rooms/{room}/messages",
        read: publishes::publish,
    },
    Route {
        method: Method::GET,
        path: "/rooms/{room}/messages",
        read: reads::history,
    },
    Route {
        method: Method::PUT,
        path: "/rooms/{room}/messages/{key}",
        read: publishes::publish_with_key,
    },
    Route {
        method: Method::GET,
        path: "/rooms",
        read: reads::rooms,
    },
    Route {
        method: Method::GET,
        path: "/rooms/{room}",
        read: reads::count,
    },
    Route {
        method: Method::GET,
        path: "/rooms/{room}/members",
        read: reads::members,
    },
    Route {
        method: Method::POST,
        path: "/messages",
        read: publishes::publish_to_many,
    },
    Route {
        method: Method::POST,
        path: "/batch",
        read: publishes::batch,
    },
    Route {
        method: Method::GET,
        path: "/users/{user}/connections",
        read: reads::connections,
    },
    Route {
        method: Method::DELETE,
        path: "/users/{user}/connections",
        read: users::disconnect,
    },
    Route {
        method: Method::PUT,
        path: "/users/{user}/rooms/{room}",
        read: users::join,
    },
    Route {
        method: Method::DELETE,
        path: "/users/{user}/rooms/{room}",
        read: users::leave,
    },
];

/// The endpoint of a method and a path.
#[derive(Debug)]
pub enum RouteMatch<'a> {
    /// A route, with the values of its path parameters.
    Route(&'static Route, Vec<&'a str>),
    Metrics,
    /// The path exists with other methods only; the value of `Allow`.
    MethodNotAllowed(String),
    /// Not a path of the API.
    NotFound,
}

/// Looks up a path by its decoded segments.
pub fn find<'a>(method: &Method, path: &'a [String]) -> RouteMatch<'a> {
    let requested = match *method {
        Method::HEAD => &Method::GET,
        _ => method,
    };
    if segments(METRICS_PATH).eq(path) {
        return match *requested {
            Method::GET => RouteMatch::Metrics,
            _ => RouteMatch::MethodNotAllowed(allow([&Method::GET])),
        };
    }
    let matching = ROUTES.iter().filter_map(|route| {
        let values = path_values(route.path, path)?;
        Some((route, values))
    });
    let mut others = Vec::new();
    for (route, values) in matching {
        if route.method == *requested {
            return RouteMatch::Route(route, values);
        }
        others.push(&route.method);
    }
    if others.is_empty() {
        RouteMatch::NotFound
    } else {
        RouteMatch::MethodNotAllowed(allow(others))
    }
}

/// Whether a call of this method and path has a body.
pub fn takes_body(method: &Method, path: &[String]) -> bool {
    matches!(*method, Method::POST | Method::PUT)
        && matches!(find(method, path), RouteMatch::Route(..))
}

/// The values of the path parameters, if the path matches the pattern.
fn path_values<'a>(pattern: &str, path: &'a [String]) -> Option<Vec<&'a str>> {
    let mut values = Vec::new();
    let mut given = path.iter();
    for wanted in segments(pattern) {
        let segment = given.next()?;
        if parameter(wanted).is_none() {
            if wanted != segment {
                return None;
            }
        } else if segment.is_empty() {
            return None;
        } else {
            values.push(segment.as_str());
        }
    }
    given.next().is_none().then_some(values)
}

fn segments(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').skip(1)
}

/// The name of the parameter that a segment of a pattern is, if it is one.
fn parameter(segment: &str) -> Option<&str> {
    segment.strip_prefix('{')?.strip_suffix('}')
}

fn allow<'a>(methods: impl IntoIterator<Item = &'a Method>) -> String {
    let names = methods.into_iter().map(|method| match *method {
        Method::GET => "GET, HEAD",
        _ => method.as_str(),
    });
    names.collect::<Vec<_>>().join(", ")
}
