//! One line and a few counts per exchange, written when its last byte has left or it was given up.
//!
//! A line holds names from configuration, numbers, codes, and the path that the upstream was asked for. It holds no URL of
//! the caller's, no query, no header value and nothing of a body.

use super::Shared;
use super::access::Line;
use super::body::Outgoing;
use super::limits::{WHOLE_TIMEOUT, WRITE_STALL_TIMEOUT};
use super::respond::{Failure, UpstreamError};
use super::settings::Route;
use crate::names::Caller;
use bytes::Bytes;
use http::{Method, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use prometheus::IntGauge;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::AbortHandle;

/// What is known of an exchange so far.
pub struct Entry {
    shared: Arc<Shared>,
    started: Instant,
    caller: Option<Caller>,
    method: &'static str,
    route: Option<Arc<Route>>,
    path: String,
    status: StatusCode,
    upstream_status: Option<StatusCode>,
    upstream: Duration,
    code: &'static str,
    bytes: u64,
    slot: Option<OwnedSemaphorePermit>,
    inflight: IntGauge,
    concluded: bool,
    deadline: Instant,
    stall: Duration,
}

/// Methods that may stand in a label; others are `other`, since a method is the caller's word.
const METHODS: [&str; 5] = ["GET", "HEAD", "POST", "PUT", "DELETE"];

/// The method, if it is one of ours.
pub fn method_word(method: &Method) -> &'static str {
    METHODS.into_iter().find(|known| method == *known).unwrap_or("other")
}

impl Entry {
    /// An exchange begins.
    pub fn new(shared: &Arc<Shared>, caller: Option<&Caller>, method: &Method) -> Entry {
        let inflight = shared.metrics.inflight_requests.clone();
        inflight.inc();
        Entry {
            shared: shared.clone(),
            started: Instant::now(),
            caller: caller.cloned(),
            method: method_word(method),
            route: None,
            path: String::new(),
            status: StatusCode::OK,
            upstream_status: None,
            upstream: Duration::ZERO,
            code: "ok",
            bytes: 0,
            slot: None,
            inflight,
            concluded: false,
            deadline: Instant::now() + WHOLE_TIMEOUT,
            stall: WRITE_STALL_TIMEOUT,
        }
    }

    /// Its route is known.
    pub fn routed(&mut self, route: &Arc<Route>) {
        self.route = Some(route.clone());
    }

    /// The upstream is asked for this target. Of its query nothing is kept: it is long and varies.
    pub fn asks(&mut self, target: &str) {
        target.split('?').next().unwrap_or_default().clone_into(&mut self.path);
    }

    /// It takes one of the places in flight, until its last byte.
    pub fn holds(&mut self, slot: OwnedSemaphorePermit) {
        self.slot = Some(slot);
    }

    /// The upstream has answered.
    pub fn answered(&mut self, status: StatusCode, after: Duration) {
        self.upstream_status = Some(status);
        self.upstream = after;
        self.shared.metrics.upstream_duration.with_label_values(&[self.route_name()]).observe(after.as_secs_f64());
    }

    /// It ends with a reason instead of the upstream's answer.
    pub fn failed(&mut self, failure: &Failure) {
        self.code = failure.words().code;
        self.shared.metrics.refusals.with_label_values(&[self.code]).inc();
        if let Failure::Request(refusal) | Failure::Answer(refusal) = failure {
            let (route, refusal) = (self.route.clone(), refusal.clone());
            self.shared.access.write(Line::Refused { route, code: self.code, refusal });
        }
    }

    /// The moment after which it is given up, whoever stalls.
    pub fn ends(&mut self, deadline: Instant) {
        self.deadline = deadline;
    }

    /// How long its reader may take nothing.
    pub fn stalls(&mut self, stall: Duration) {
        self.stall = stall;
    }

    /// Ties the entry to the answer's body.
    pub fn seal(mut self, answer: Response<Outgoing>) -> Response<Told> {
        self.status = answer.status();
        answer.map(|body| {
            self.concluded = body.is_end_stream(); // hyper does not ask an empty body for its end
            Told::new(body, self)
        })
    }

    fn route_name(&self) -> &str {
        self.route.as_ref().map_or("none", |route| &route.name)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.inflight.dec();
        if !self.concluded && self.code == "ok" {
            self.code = "aborted"; // the peer went away before the last byte
        }
        let duration = self.started.elapsed();
        let class = ["1xx", "2xx", "3xx", "4xx", "5xx"][usize::from(self.status.as_u16() / 100).clamp(1, 5) - 1];
        let metrics = &self.shared.metrics;
        metrics.requests.with_label_values(&[self.route_name(), self.method, class]).inc();
        metrics.request_duration.with_label_values(&[self.route_name()]).observe(duration.as_secs_f64());
        self.shared.access.write(Line::Exchange {
            method: self.method,
            path: std::mem::take(&mut self.path),
            status: self.status.as_u16(),
            upstream_status: self.upstream_status.map(|status| status.as_u16()),
            code: self.code,
            caller: self.caller.take(),
            bytes: self.bytes,
            duration,
            upstream: self.upstream,
            route: self.route.take(),
        });
    }
}

/// An answer's body together with its entry. hyper does not ask a body for more while its peer takes nothing, so no
/// timer inside the body would run then: a watch from outside lets go of everything at the deadline, and of what its reader
/// does not take. HTTP/2 needs it most: a stream whose window is shut stalls without its connection.
pub struct Told {
    /// `None`: given up.
    parts: Arc<Mutex<Option<Parts>>>,
    watch: Option<AbortHandle>,
}

struct Parts {
    body: Outgoing,
    entry: Entry,
    /// When its reader was last given something, if it has not asked for more since.
    given: Option<Instant>,
}

impl Told {
    fn new(body: Outgoing, entry: Entry) -> Told {
        let (empty, deadline) = (body.is_end_stream(), entry.deadline);
        let stall = entry.stall;
        let parts = Arc::new(Mutex::new(Some(Parts { body, entry, given: Some(Instant::now()) })));
        let watched = parts.clone();
        let watch = (!empty).then(|| {
            let give_up = async move {
                loop {
                    let Some(given) = lock(&watched).as_ref().map(|parts| parts.given) else { return };
                    let now = Instant::now();
                    let end = deadline.min(given.unwrap_or(now) + stall);
                    if end <= now {
                        drop(lock(&watched).take());
                        return;
                    }
                    tokio::time::sleep_until(end.into()).await;
                }
            };
            tokio::spawn(give_up).abort_handle()
        });
        Told { parts, watch }
    }
}

fn lock(parts: &Mutex<Option<Parts>>) -> MutexGuard<'_, Option<Parts>> {
    // A panic in the rewriter ends this exchange only; whoever looks next finds the body as it was and lets go of it.
    parts.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Told {
    fn drop(&mut self) {
        if let Some(watch) = &self.watch {
            watch.abort();
        }
        drop(lock(&self.parts).take());
    }
}

impl Body for Told {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        let mut parts = lock(&self.parts);
        let Some(Parts { body, entry, given }) = &mut *parts else {
            return Poll::Ready(Some(Err(Failure::Upstream(UpstreamError::Slow))));
        };
        let next = Pin::new(&mut *body).poll_frame(cx);
        *given = matches!(next, Poll::Ready(Some(Ok(_)))).then(Instant::now);
        match &next {
            Poll::Ready(Some(Ok(frame))) => entry.bytes += frame.data_ref().map_or(0, |data| data.len() as u64),
            Poll::Ready(Some(Err(failure))) if entry.code == "ok" => entry.failed(failure),
            Poll::Ready(Some(Err(_))) | Poll::Ready(None) | Poll::Pending => {}
        }
        if next.is_ready() {
            entry.concluded = body.is_end_stream();
        }
        next
    }

    fn is_end_stream(&self) -> bool {
        lock(&self.parts).as_ref().is_some_and(|parts| parts.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        lock(&self.parts).as_ref().map(|parts| parts.body.size_hint()).unwrap_or_default()
    }
}
