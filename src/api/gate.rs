//! Authorization of API calls. With keys, a request must carry one. Without, only a program on the
//! same machine is admitted: no request that came through a proxy, and no page in a browser, since
//! a browser sends requests of foreign pages to this machine too.

use std::net::IpAddr;

use crate::config::api_keys::ApiKeys;
use crate::http::{Authority, Method, Refusal, RequestHead, StatusCode};
use crate::model::source::CallerId;

/// The `WWW-Authenticate` field of a 401 (RFC 6750 section 3): without credentials, or with an
/// invalid key.
const NO_CREDENTIALS: &str = "Bearer realm=\"switchboard\"";
const INVALID_KEY: &str = "Bearer realm=\"switchboard\", error=\"invalid_token\"";

/// The key's name in the log for a program of this machine, which needs no key.
const LOCAL: &str = "local";

/// Which requests the API admits.
#[derive(Clone, Debug)]
pub enum Gate {
    /// Requests with one of these keys.
    Keys(ApiKeys),
    /// Programs of the same machine: open mode, on the loopback interface.
    Local,
    /// None: the operator has configured no keys.
    Closed,
}

impl Gate {
    /// Checks a head, before the body is read. Returns the name of the key.
    ///
    /// # Errors
    /// 404 when the API is off, 401 without the right key, 403 where a key would be needed.
    pub fn admit(&self, request: &RequestHead) -> Result<&str, Refusal> {
        match self {
            Gate::Closed => {
                let reason =
                    "The HTTP API is off here: the operator must give it keys with --api-key-file.";
                Err(Refusal::new(StatusCode::NOT_FOUND, reason))
            }
            Gate::Local => local_program(request),
            Gate::Keys(keys) => with_key(request, keys),
        }
    }

    /// The caller with the name that [`Gate::admit`] returned.
    pub fn caller(&self, name: &str) -> CallerId {
        let index = match self {
            Gate::Keys(keys) => keys.index_of(name),
            Gate::Local | Gate::Closed => None,
        };
        index.map_or(CallerId::LOCAL, CallerId::of_key)
    }
}

/// Checks the content type of the body, if there is one. A POST without a body is checked too,
/// because a page could send it.
///
/// # Errors
/// 415 unless the type is JSON. A page of another origin could send any other type without a
/// preflight (Fetch standard, section 3.3).
pub(crate) fn check_type(request: &RequestHead) -> Result<(), Refusal> {
    let has_type = match request.method {
        Method::POST => true,
        // No page can send a PUT without a preflight.
        Method::PUT => !request.body.is_empty(),
        _ => false,
    };
    if !has_type || is_json(request) {
        return Ok(());
    }
    let reason = "Send the body as Content-Type: application/json.";
    Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, reason))
}

fn with_key<'a>(request: &RequestHead, keys: &'a ApiKeys) -> Result<&'a str, Refusal> {
    let mut fields = request.headers("authorization");
    let refuse = |reason, field: &'static str| {
        Refusal::new(StatusCode::UNAUTHORIZED, reason).with("WWW-Authenticate", field)
    };
    let (Some(credentials), None) = (fields.next(), fields.next()) else {
        let reason = "Send one Authorization: Bearer KEY, with a key of the HTTP API.";
        return Err(refuse(reason, NO_CREDENTIALS));
    };
    let key = credentials
        .split_once(' ')
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .and_then(|(_, key)| keys.name_of(key.trim_start_matches(' ')));
    key.ok_or_else(|| refuse("This is not a key of the HTTP API.", INVALID_KEY))
}

fn local_program(request: &RequestHead) -> Result<&'static str, Refusal> {
    let forwarded = ["forwarded", "x-forwarded-for", "x-real-ip", "via"];
    let came_through = forwarded
        .iter()
        .any(|field| request.header(field).is_some());
    // `none` is a URL typed into the address bar; programs send no such field.
    let of_a_page = request.header("origin").is_some()
        || request.headers("sec-fetch-site").any(|site| site != "none");
    if came_through || of_a_page || !is_this_machine(&request.host) {
        let reason = "Without keys the HTTP API serves programs on this machine alone: \
                      the operator must give it keys with --api-key-file.";
        return Err(Refusal::new(StatusCode::FORBIDDEN, reason));
    }
    Ok(LOCAL)
}

/// Whether the host is this machine under a name that no other site can use: a foreign name may
/// resolve to this machine too, and a page from it would then count as same-origin.
fn is_this_machine(host: &str) -> bool {
    let Some(Authority { host, .. }) = Authority::parse(host) else {
        return false;
    };
    host == "localhost"
        || host
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

fn is_json(request: &RequestHead) -> bool {
    let mut types = request.headers("content-type");
    let (Some(kind), None) = (types.next(), types.next()) else {
        return false;
    };
    let essence = kind.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
}
