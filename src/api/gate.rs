//! Who may call the API. With keys, whoever shows one. Without, only a program on the same machine:
//! nothing that came through a proxy, and no page in a browser, since a browser sends to this
//! machine whatever a foreign page asks it to.

use std::net::IpAddr;

use crate::config::api_keys::Keys;
use crate::http::{Authority, Method, Refusal, Request, Status};

/// What the field of a 401 says (RFC 6750 section 3): nothing was shown, or something that is no
/// key.
const NOTHING_SHOWN: &str = "Bearer realm=\"switchboard\"";
const NO_KEY: &str = "Bearer realm=\"switchboard\", error=\"invalid_token\"";

/// The name in the log of who needs no key.
const DESK: &str = "desk";

/// The door of the API.
#[derive(Clone, Debug)]
pub enum Gate {
    /// Whoever shows a key is let in.
    Keys(Keys),
    /// Programs of the same machine are let in: open mode, on the loopback interface.
    Turn,
    /// Nobody is: the operator has given no keys.
    Closed,
}

impl Gate {
    /// Judges a head, before anything of the body is read: the name of who is let in.
    ///
    /// # Errors
    /// 404 when the API is off, 401 without the right key, 403 where a key would be needed.
    pub fn admit(&self, request: &Request) -> Result<&str, Refusal> {
        match self {
            Gate::Closed => {
                let reason =
                    "The HTTP API is off here: the operator must give it keys with --api-key-file.";
                Err(Refusal::new(Status::NotFound, reason))
            }
            Gate::Turn => desk(request),
            Gate::Keys(keys) => shown(request, keys),
        }
    }
}

/// Judges what kind of body is announced, if there is one. A POST that has none is judged all the
/// same: see below.
///
/// # Errors
/// 415 unless it is said to be JSON. Any other type could be sent by a page of another origin
/// without asking first (Fetch standard, section 3.3).
pub fn check_type(request: &Request) -> Result<(), Refusal> {
    let has_type = match request.method {
        Method::Post => true,
        // No page can send one without asking first.
        Method::Put => request.content_length > 0,
        _ => false,
    };
    if !has_type || is_json(request) {
        return Ok(());
    }
    let reason = "Send the body as Content-Type: application/json.";
    Err(Refusal::new(Status::UnsupportedMediaType, reason))
}

fn shown<'a>(request: &Request, keys: &'a Keys) -> Result<&'a str, Refusal> {
    let mut shown = request.headers("authorization");
    let refuse = |reason, field: &'static str| {
        Refusal::new(Status::Unauthorized, reason).with("WWW-Authenticate", field)
    };
    let (Some(credentials), None) = (shown.next(), shown.next()) else {
        let reason = "Send one Authorization: Bearer KEY, with a key of the HTTP API.";
        return Err(refuse(reason, NOTHING_SHOWN));
    };
    let key = credentials
        .split_once(' ')
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .and_then(|(_, key)| keys.name_of(key.trim_start_matches(' ')));
    key.ok_or_else(|| refuse("This is not a key of the HTTP API.", NO_KEY))
}

fn desk(request: &Request) -> Result<&'static str, Refusal> {
    let forwarded = ["forwarded", "x-forwarded-for", "x-real-ip", "via"];
    let came_through = forwarded
        .iter()
        .any(|field| request.header(field).is_some());
    // Typed into the address bar, it is the person's own wish; programs send no such field.
    let of_a_page = request.header("origin").is_some()
        || request.headers("sec-fetch-site").any(|site| site != "none");
    if came_through || of_a_page || !is_this_machine(&request.host) {
        let reason = "Without keys the HTTP API serves programs on this machine alone: the operator must give it keys with --api-key-file.";
        return Err(Refusal::new(Status::Forbidden, reason));
    }
    Ok(DESK)
}

/// Whether the host is this machine under a name that nobody else can give: a foreign name may
/// point here too, and a page that came from it would then count as its own.
fn is_this_machine(host: &str) -> bool {
    let Some(Authority { host, .. }) = Authority::parse(host) else {
        return false;
    };
    host == "localhost"
        || host
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

fn is_json(request: &Request) -> bool {
    let mut types = request.headers("content-type");
    let (Some(kind), None) = (types.next(), types.next()) else {
        return false;
    };
    let essence = kind.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
}
