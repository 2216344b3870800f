//! `switchboard token read`: shows the claims of a token, and whether nodes accept it.

use std::io;
use std::process::ExitCode;

use serde::Serialize;
use serde_json::value::RawValue;

use super::client::{CommandFailure, exit_code, note, print, print_json};
use super::printable;
use super::time::{date, rough};
use crate::auth::{self, TokenReport, TokenVerdict};
use crate::config::TokenReadRequest;
use crate::dispatcher::Now;
use crate::model::identity::Action;
use crate::model::secret::Secret;

/// What the actions are called in a token.
const ACTIONS: [(Action, &str); 4] = [
    (Action::Join, "join"),
    (Action::Publish, "publish"),
    (Action::History, "history"),
    (Action::Members, "members"),
];

/// The report as one JSON object. Times are in milliseconds since 1970.
#[derive(Serialize)]
struct ReportLine<'a> {
    verdict: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    issued: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    begins: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires: Option<u64>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    audiences: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    issuer: Option<&'a str>,
    rooms: RightsLine,
    #[serde(skip_serializing_if = "Option::is_none")]
    info: Option<&'a RawValue>,
}

/// The patterns of rooms, by action.
#[derive(Serialize)]
struct RightsLine {
    join: Vec<String>,
    publish: Vec<String>,
    history: Vec<String>,
    members: Vec<String>,
}

/// Ends with an error for a token that no node accepts.
pub(super) fn run(request: &TokenReadRequest) -> ExitCode {
    let token = match &request.token {
        Some(token) => token.clone(),
        None => match io::read_to_string(io::stdin()) {
            Ok(text) => Secret::new(text.trim().to_owned()),
            Err(error) => {
                return super::fail(&format_args!("standard input cannot be read: {error}"));
            }
        },
    };
    let now = Now::read().unix_ms;
    match auth::inspect(request, &token, now) {
        Err(error) => super::refuse(&error),
        Ok(Err(error)) => super::fail(&error),
        Ok(Ok(report)) => exit_code(show(&report, request.json, now)),
    }
}

fn show(report: &TokenReport, json: bool, now: u64) -> Result<(), CommandFailure> {
    if json {
        print_json(&line(report))?;
    } else {
        print(readable(report, now))?;
    }
    match report.verdict {
        TokenVerdict::Accepted => Ok(()),
        TokenVerdict::Unverified => {
            note("the signature is not verified: give --token-secret-file or --token-key");
            Ok(())
        }
        TokenVerdict::Refused(error) => Err(CommandFailure::Refused(error.to_string())),
    }
}

fn verdict(verdict: TokenVerdict) -> &'static str {
    match verdict {
        TokenVerdict::Accepted => "accepted",
        TokenVerdict::Unverified => "unverified",
        TokenVerdict::Refused(_) => "refused",
    }
}

fn patterns(report: &TokenReport, action: Action) -> Vec<String> {
    let patterns = report.claims.grants.patterns(action).iter();
    patterns.map(ToString::to_string).collect()
}

fn line(report: &TokenReport) -> ReportLine<'_> {
    let claims = &report.claims;
    ReportLine {
        verdict: verdict(report.verdict),
        reason: match report.verdict {
            TokenVerdict::Refused(error) => Some(error.sentence()),
            _ => None,
        },
        user: claims.user.as_deref(),
        issued: claims.issued,
        begins: claims.begins,
        expires: claims.expires,
        audiences: &claims.audiences,
        issuer: claims.issuer.as_deref(),
        rooms: RightsLine {
            join: patterns(report, Action::Join),
            publish: patterns(report, Action::Publish),
            history: patterns(report, Action::History),
            members: patterns(report, Action::Members),
        },
        info: claims.info.as_deref(),
    }
}

/// A line for each claim that the token has.
fn readable(report: &TokenReport, now: u64) -> String {
    let claims = &report.claims;
    let mut lines = vec![("verdict", verdict(report.verdict).to_owned())];
    let user = claims.user.clone();
    lines.push(("user", user.unwrap_or_else(|| "-".into())));
    let time = |time: u64| match time.checked_sub(now) {
        Some(left) => format!("{}, in {}", date(time), rough(left)),
        None => format!("{}, {} ago", date(time), rough(now - time)),
    };
    let times = [
        ("issued", claims.issued),
        ("begins", claims.begins),
        ("expires", claims.expires),
    ];
    for (name, claim) in times {
        lines.extend(claim.map(|claim| (name, time(claim))));
    }
    if !claims.audiences.is_empty() {
        lines.push(("audience", claims.audiences.join(", ")));
    }
    lines.extend(claims.issuer.clone().map(|issuer| ("issuer", issuer)));
    for (action, name) in ACTIONS {
        let rooms = patterns(report, action).join(", ");
        if !rooms.is_empty() {
            lines.push((name, rooms));
        }
    }
    let info = claims.info.as_ref();
    lines.extend(info.map(|info| ("info", info.get().to_owned())));
    let lines = lines
        .iter()
        .map(|(name, value)| format!("{name:<8} {}", printable(value)));
    lines.collect::<Vec<_>>().join("\n")
}
