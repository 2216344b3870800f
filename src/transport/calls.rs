//! Executes a call of the HTTP API: sends its commands to the dispatcher and collects the answers.
//! A command without an answer in time gets an error that states whether it may have taken effect.

use std::sync::Arc;

use crate::api::{self, ApiRequest, PendingAnswers, RouteMatch};
use crate::dispatcher::{Event, Now, ReplyTo};
use crate::http::{Refusal, RequestHead, Response, StatusCode};
use crate::metrics::exposition::{self, Facts};
use crate::metrics::process::Process;
use crate::metrics::{Metric, RefusalCause};
use crate::model::readiness::ReadinessState;
use crate::model::source::CallerId;
use crate::protocol::{Code, Command, CommandError};
use crate::runtime;

use super::{ListenerKind, Node};

/// The endpoint of a request, if this listener serves the API.
pub(super) fn find<'a>(
    node: &Node,
    listener_kind: ListenerKind,
    request: &'a RequestHead,
) -> RouteMatch<'a> {
    match listener_kind {
        ListenerKind::Public if node.api_separate => RouteMatch::NotFound,
        _ => api::find(&request.method, &request.segments),
    }
}

/// Checks authorization and content type, before the body is read. Returns whose call it is.
/// `/metrics` needs no key on the listener for backends.
///
/// # Errors
/// As for [`api::Gate::admit`] and [`api::check_type`].
pub(super) fn admit(
    node: &Node,
    listener_kind: ListenerKind,
    request: &RequestHead,
    found: &RouteMatch<'_>,
) -> Result<CallerId, Refusal> {
    match (found, listener_kind) {
        (RouteMatch::NotFound, _) | (RouteMatch::Metrics, ListenerKind::Backends) => {
            Ok(CallerId::LOCAL)
        }
        _ => {
            let key = node.gate.admit(request)?;
            log::debug!(key = key, path = path_as_sent(request); "called");
            if matches!(found, RouteMatch::Route(..)) {
                api::check_type(request)?;
            }
            Ok(node.gate.caller(key))
        }
    }
}

/// Whether the answer depends on the body.
pub(super) fn reads_body(found: &RouteMatch<'_>) -> bool {
    matches!(found, RouteMatch::Route(..))
}

/// The path without the query, in ASCII: decoded, it may turn the direction of a line.
fn path_as_sent(request: &RequestHead) -> &str {
    request.target.split('?').next().unwrap_or_default()
}

/// A guard to hold until the response to a call is written: a drain waits for the last one.
pub(super) fn in_flight(node: &Node, found: &RouteMatch<'_>) -> Option<flume::Sender<()>> {
    match found {
        RouteMatch::Route(..) => node.calls.upgrade(),
        _ => None,
    }
}

/// Executes a call. `None` if the request is not for the API.
pub(super) async fn answer(
    node: &Node,
    caller: CallerId,
    request: &RequestHead,
    found: RouteMatch<'_>,
    body: &[u8],
) -> Option<Response> {
    let (route, path_values) = match found {
        RouteMatch::Route(route, path_values) => (route, path_values),
        RouteMatch::Metrics => return Some(metrics(node)),
        RouteMatch::MethodNotAllowed(allow) => {
            let reason = "The Allow field lists the methods of this path.";
            let response = Response::error(StatusCode::METHOD_NOT_ALLOWED, reason);
            return Some(response.with("Allow", allow));
        }
        RouteMatch::NotFound => return None,
    };
    let api_request = ApiRequest {
        path_values: path_values.into_iter().map(Into::into).collect(),
        query: request.query.as_deref().map(Into::into),
        body,
        depth: node.limits.depth,
        unix_ms: Now::read().unix_ms,
    };
    Some(match route.read(&api_request) {
        Ok(call) => execute(node, caller, call).await,
        Err(error) => api::refused(&error),
    })
}

/// The node's metrics, as one page.
fn metrics(node: &Node) -> Response {
    let facts = Facts {
        runtime: runtime::name(),
        ready: node.readiness.state() == ReadinessState::Ready,
        uptime: node.started.elapsed(),
        inbox: node.inbox.len(),
        process: Process::read(),
    };
    exposition::page(&node.metrics, &facts)
}

/// The permit of a call among those that are executed at once.
struct CallPermit<'a>(&'a Metric);

impl<'a> CallPermit<'a> {
    /// Returns `None` if the limit is reached.
    fn acquire(open: &'a Metric, most: usize) -> Option<Self> {
        open.add(1);
        let permit = Self(open);
        (open.get() <= most as u64).then_some(permit)
    }
}

impl Drop for CallPermit<'_> {
    fn drop(&mut self) {
        self.0.sub(1);
    }
}

async fn execute(node: &Node, caller: CallerId, call: api::Call) -> Response {
    let state = node.readiness.state();
    if state != ReadinessState::Ready {
        node.metrics.refused_total.count(RefusalCause::NotReady);
        return api::refused(&CommandError::new(Code::Unavailable, state.sentence()));
    }
    let Some(_permit) = CallPermit::acquire(&node.metrics.calls_open, node.limits.calls) else {
        node.metrics.refused_total.count(RefusalCause::Calls);
        let reason = "this node is executing its maximum of calls; try again, or use another node";
        return api::refused(&CommandError::new(Code::Unavailable, reason));
    };
    let (commands, mut waiting) = call.into_parts();
    let exchange = exchange(node, caller, commands, &mut waiting);
    // After a timeout, the missing answers become errors.
    let _ = runtime::timeout(node.limits.call_timeout, exchange).await;
    waiting.response()
}

/// Completes when all commands are answered, or the dispatcher has ended.
async fn exchange(
    node: &Node,
    caller: CallerId,
    commands: Vec<Command>,
    waiting: &mut PendingAnswers,
) {
    let (sender, answers) = flume::bounded(commands.len());
    for (index, command) in commands.into_iter().enumerate() {
        let sink = Arc::new(api::ApiCaller::new(caller, index, sender.clone()));
        // Marked first: after a timeout during the send it is unknown whether the inbox took it.
        waiting.sent(index);
        let reply_to = ReplyTo::Caller(sink);
        let event = Event::Command { reply_to, command };
        if node.inbox.send_async(event).await.is_err() {
            return waiting.not_sent(index);
        }
    }
    drop(sender);
    while let Ok((index, answer)) = answers.recv_async().await {
        waiting.put(index, answer);
    }
}
