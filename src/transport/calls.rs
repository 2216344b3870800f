//! A call of the HTTP API on its way: its commands go to the dispatcher, the answers come back, and
//! if one does not in time the caller is told what that means.

use crate::api::{self, Asked, Found, Waiting};
use crate::dispatcher::{Event, Now};
use crate::http::{Refusal, Request, Response, Status};
use crate::metrics::exposition::{self, Facts};
use crate::metrics::process::Process;
use crate::metrics::{Metric, Refused};
use crate::model::readiness::State;
use crate::protocol::{Code, CommandError};
use crate::runtime;

use super::{Entrance, Node};

/// What a request asks of the API, if this is an entrance to it.
pub fn find<'a>(node: &Node, entrance: Entrance, request: &'a Request) -> Found<'a> {
    match entrance {
        Entrance::Public if node.api_apart => Found::Nothing,
        _ => api::find(request.method, &request.path),
    }
}

/// Judges who asks and what kind of body follows, before the body is read. The figures are free
/// where only backends come in.
///
/// # Errors
/// As for [`api::Gate::admit`] and [`api::check_type`].
pub fn admit(
    node: &Node,
    entrance: Entrance,
    request: &Request,
    found: &Found<'_>,
) -> Result<(), Refusal> {
    match (found, entrance) {
        (Found::Nothing, _) | (Found::Metrics, Entrance::Backends) => Ok(()),
        _ => {
            let key = node.gate.admit(request)?;
            log::debug!(key = key, path = request.path.as_str(); "called");
            match found {
                Found::Route(..) => api::check_type(request),
                _ => Ok(()),
            }
        }
    }
}

/// To be held until the answer to a call is written: a drain waits for the last.
pub fn under_way(node: &Node, found: &Found<'_>) -> Option<flume::Sender<()>> {
    match found {
        Found::Route(..) => node.calls.upgrade(),
        _ => None,
    }
}

/// Carries a call out. `None`: it is none.
pub async fn answer(
    node: &Node,
    request: &Request,
    found: Found<'_>,
    body: &[u8],
) -> Option<Response> {
    let (route, held) = match found {
        Found::Route(route, held) => (route, held),
        Found::Metrics => return Some(figures(node)),
        Found::Otherwise(allow) => {
            let reason = "The Allow field says what can be done here.";
            let response = Response::error(Status::MethodNotAllowed, reason);
            return Some(response.with("Allow", allow));
        }
        Found::Nothing => return None,
    };
    let asked = Asked {
        held,
        query: request.query.as_deref(),
        body,
        depth: node.limits.depth,
        unix_ms: Now::read().unix_ms,
    };
    Some(match route.read(&asked) {
        Ok(call) => carry_out(node, call).await,
        Err(error) => api::refused(&error),
    })
}

/// The node's figures, as one page.
fn figures(node: &Node) -> Response {
    let facts = Facts {
        runtime: runtime::name(),
        ready: node.readiness.state() == State::Ready,
        uptime: node.started.elapsed(),
        inbox: node.inbox.len(),
        process: Process::read(),
    };
    exposition::page(&node.metrics, &facts)
}

/// The place of a call among those that are carried out at once.
struct Place<'a>(&'a Metric);

impl<'a> Place<'a> {
    /// `None`: all are taken.
    fn take(open: &'a Metric, most: usize) -> Option<Self> {
        open.add(1);
        let place = Self(open);
        (open.get() <= most as u64).then_some(place)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.sub(1);
    }
}

async fn carry_out(node: &Node, call: api::Call) -> Response {
    let state = node.readiness.state();
    if state != State::Ready {
        node.metrics.refused_total.count(Refused::NotReady);
        return api::refused(&CommandError::new(Code::Unavailable, state.sentence()));
    }
    let Some(_place) = Place::take(&node.metrics.calls_open, node.limits.calls) else {
        node.metrics.refused_total.count(Refused::Calls);
        let reason =
            "this node carries out as many calls as it may; try again, or use another node";
        return api::refused(&CommandError::new(Code::Unavailable, reason));
    };
    let (commands, mut waiting) = call.into_parts();
    let asking = ask(node, commands, &mut waiting);
    // Late or not: what has been answered by now is told, and what has not is told to be unknown.
    let _ = runtime::timeout(node.limits.call_timeout, asking).await;
    waiting.response()
}

/// Ready when everything is answered, or there is nobody to answer any more.
async fn ask(node: &Node, commands: Vec<api::Command>, waiting: &mut Waiting) {
    let (telling, answers) = flume::bounded(commands.len());
    for (place, command) in commands.into_iter().enumerate() {
        let caller = api::ApiCaller::new(place, telling.clone());
        // Noted first: when the time is over while the inbox takes it, nobody knows whether it did.
        waiting.asked(place);
        let event = Event::Call { caller, command };
        if node.inbox.send_async(event).await.is_err() {
            return waiting.not_asked(place);
        }
    }
    drop(telling);
    while let Ok((place, answer)) = answers.recv_async().await {
        waiting.put(place, answer);
    }
}
