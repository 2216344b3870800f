//! Parses a complete head: RFC 9112 sections 2 to 6, strictly. `httparse` splits it; this file
//! checks what `httparse` accepts although two readers could interpret it differently (versions,
//! Host, the end of the body).

use super::{
    Authority, BodyFraming, HeadLimits, LIVE_PATH, Method, READY_PATH, Refusal, RequestHead,
    StatusCode, Version, supported_method, target,
};

/// A head that ends in its only blank line and has clean line ends.
pub(super) fn parse_whole(head: &[u8], limits: &HeadLimits) -> Result<RequestHead, Refusal> {
    let mut slots = vec![httparse::EMPTY_HEADER; limits.fields];
    let mut raw = httparse::Request::new(&mut slots);
    match raw.parse(head) {
        Ok(httparse::Status::Complete(length)) if length == head.len() => {}
        Ok(_) => return Err(Refusal::bad_request("The request head is malformed.")),
        Err(httparse::Error::TooManyHeaders) => {
            return Err(Refusal::too_large(
                "The request has too many header fields: send fewer.",
            ));
        }
        Err(httparse::Error::Version) if names_a_version(head) => return Err(version_refused()),
        Err(httparse::Error::HeaderName | httparse::Error::HeaderValue) => {
            return Err(Refusal::bad_request(
                "A header field must be NAME: VALUE on one line, without space before the colon.",
            ));
        }
        Err(_) => {
            return Err(Refusal::bad_request_line());
        }
    }
    let method = supported_method(raw.method.unwrap_or_default().as_bytes());
    let method = method.ok_or_else(Refusal::unknown_method)?;
    let target = raw.path.unwrap_or_default();
    let parts = target::split(target)?;
    let version = version(raw.version, &method, &parts.path, coded(raw.headers))?;
    let mut request = RequestHead {
        method,
        version,
        target: target.to_owned(),
        path: parts.path,
        segments: parts.segments,
        query: parts.query,
        host: String::new(),
        body: BodyFraming::Length(0),
        keep_alive: false,
        expects_continue: false,
        fields: raw.headers.iter().map(owned).collect(),
    };
    request.host = host(&request)?;
    request.body = body_framing(&request, limits)?;
    request.expects_continue = expects_continue(&request)?;
    request.keep_alive = version == Version::HTTP_11
        && !request.lists("connection", "close")
        && request.header("upgrade").is_none();
    Ok(request)
}

fn owned(field: &httparse::Header<'_>) -> (String, String) {
    let value = String::from_utf8_lossy(field.value).into_owned();
    (field.name.to_ascii_lowercase(), value)
}

/// `HTTP-version = "HTTP/" DIGIT "." DIGIT` as the last of three parts: a valid request line of an
/// unsupported version.
fn names_a_version(head: &[u8]) -> bool {
    let line = head.split(|&byte| byte == b'\r').next().unwrap_or_default();
    let version = line.splitn(3, |&byte| byte == b' ').nth(2);
    matches!(version, Some([b'H', b'T', b'T', b'P', b'/', major, b'.', minor])
        if major.is_ascii_digit() && minor.is_ascii_digit())
}

fn version(
    minor: Option<u8>,
    method: &Method,
    path: &str,
    coded: bool,
) -> Result<Version, Refusal> {
    let is_check = match *method {
        Method::GET | Method::HEAD => [LIVE_PATH, READY_PATH].contains(&path),
        // HAProxy's check, unless its configuration names another.
        Method::OPTIONS => path == "/",
        _ => false,
    };
    match minor {
        Some(1) => Ok(Version::HTTP_11),
        // RFC 9112 section 6.1: HTTP/1.0 has no transfer codings, so its end is unknown.
        Some(0) if coded => Err(Refusal::bad_request(
            "HTTP/1.0 has no Transfer-Encoding: send a Content-Length, or use HTTP/1.1.",
        )),
        Some(0) if is_check => Ok(Version::HTTP_10),
        _ => Err(version_refused()),
    }
}

fn coded(fields: &[httparse::Header<'_>]) -> bool {
    let mut names = fields.iter().map(|field| field.name);
    names.any(|name| name.eq_ignore_ascii_case("transfer-encoding"))
}

/// Exactly one Host, of the form `uri-host [ ":" port ]` (RFC 9112 section 3.2); HTTP/1.0 has
/// none.
fn host(request: &RequestHead) -> Result<String, Refusal> {
    let mut hosts = request.headers("host");
    match (hosts.next(), hosts.next(), request.version) {
        (None, _, Version::HTTP_10) => Ok(String::new()),
        (Some(host), None, _) if Authority::parse(host).is_some() => Ok(host.to_ascii_lowercase()),
        _ => Err(Refusal::bad_request(
            "Send exactly one Host field with a host and, if need be, a port.",
        )),
    }
}

/// RFC 9112 section 6. Request smuggling needs two readers that disagree on the end of a body, so
/// everything ambiguous is refused, including names with `_` for `-`, which some gateways treat as
/// equal.
fn body_framing(request: &RequestHead, limits: &HeadLimits) -> Result<BodyFraming, Refusal> {
    if ["content_length", "transfer_encoding"]
        .iter()
        .any(|name| request.header(name).is_some())
    {
        return Err(Refusal::bad_request(
            "Write Content-Length and Transfer-Encoding with a dash, not with an underscore.",
        ));
    }
    let coded = request.header("transfer-encoding").is_some();
    let mut lengths = request.headers("content-length");
    let announced = match (lengths.next(), lengths.next(), coded) {
        (Some(_), _, true) => {
            return Err(Refusal::bad_request(
                "Content-Length and Transfer-Encoding exclude each other.",
            ));
        }
        (None, _, true) => return chunked(request, limits),
        (Some(_), Some(_), false) => return Err(Refusal::bad_request("Send Content-Length once.")),
        (Some(digits), None, false) => Some(parse_length(digits)?),
        (None, _, false) => None,
    };
    let length = match (takes_body(&request.method), announced) {
        (true, None) => {
            return Err(Refusal::new(
                StatusCode::LENGTH_REQUIRED,
                "Send a Content-Length, zero if there is no body.",
            ));
        }
        (true, Some(length)) if length > limits.body => {
            return Err(Refusal::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "The body is too large: send less at once.",
            ));
        }
        (true, Some(length)) => length,
        (false, None | Some(0)) => 0,
        (false, Some(_)) => {
            return Err(Refusal::bad_request("Only POST and PUT may have a body."));
        }
    };
    Ok(BodyFraming::Length(length))
}

/// Only these may have a body, and these must announce its end.
fn takes_body(method: &Method) -> bool {
    matches!(*method, Method::POST | Method::PUT)
}

/// RFC 9112 section 6.1: a body whose end a transfer coding announces. The name must be spelt as
/// every client spells it, in one field: in a list, a second field or another case, a proxy in
/// between may not recognize it.
fn chunked(request: &RequestHead, limits: &HeadLimits) -> Result<BodyFraming, Refusal> {
    if !takes_body(&request.method) || !(limits.chunked)(&request.method, &request.segments) {
        return Err(Refusal::new(
            StatusCode::NOT_IMPLEMENTED,
            "Transfer codings are not supported here: send a Content-Length.",
        ));
    }
    let mut codings = request.headers("transfer-encoding");
    match (codings.next(), codings.next()) {
        (Some("chunked"), None) => Ok(BodyFraming::Chunked),
        _ => Err(Refusal::bad_request(
            "The only transfer coding is `chunked`: send Transfer-Encoding: chunked, once.",
        )),
    }
}

/// `Content-Length = 1*DIGIT`; ten digits are far above any limit and far below an overflow.
fn parse_length(digits: &str) -> Result<u64, Refusal> {
    let plain =
        (1..=10).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
    let length = digits.parse().ok().filter(|_| plain);
    length.ok_or_else(|| {
        Refusal::bad_request("Content-Length must be one number of one to ten digits.")
    })
}

/// RFC 9110 section 10.1.1: to be ignored where there is no body, and from HTTP/1.0.
fn expects_continue(request: &RequestHead) -> Result<bool, Refusal> {
    let mut expectations = request.elements("expect");
    if !expectations.all(|expectation| expectation.eq_ignore_ascii_case("100-continue")) {
        return Err(Refusal::new(
            StatusCode::EXPECTATION_FAILED,
            "The only expectation understood is 100-continue.",
        ));
    }
    let is_expected = request.header("expect").is_some();
    Ok(is_expected && request.version == Version::HTTP_11 && !request.body.is_empty())
}

fn version_refused() -> Refusal {
    Refusal::new(
        StatusCode::HTTP_VERSION_NOT_SUPPORTED,
        "Use HTTP/1.1; HTTP/1.0 is answered on health checks only.",
    )
}
