//! One line and a few counts per exchange, written when its last byte has left or it was given up.
//!
//! A line holds names from configuration, numbers and codes. It holds no URL, no header value and nothing of a body.

use super::Shared;
use super::body::Outgoing;
use super::limits::WHOLE_TIMEOUT;
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
    status: StatusCode,
    upstream_status: Option<StatusCode>,
    upstream: Duration,
    code: &'static str,
    bytes: u64,
    slot: Option<OwnedSemaphorePermit>,
    inflight: IntGauge,
    concluded: bool,
    deadline: Instant,
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
            status: StatusCode::OK,
            upstream_status: None,
            upstream: Duration::ZERO,
            code: "ok",
            bytes: 0,
            slot: None,
            inflight,
            concluded: false,
            deadline: Instant::now() + WHOLE_TIMEOUT,
        }
    }

    /// Its route is known.
    pub fn routed(&mut self, route: &Arc<Route>) {
        self.route = Some(route.clone());
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
            tracing::warn!(
                route = self.route_name(),
                code = self.code,
                at = refusal.path.as_str(),
                byte = refusal.byte,
                "refused"
            );
        }
    }

    /// The moment after which it is given up, whoever stalls.
    pub fn ends(&mut self, deadline: Instant) {
        self.deadline = deadline;
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
        tracing::info!(
            route = self.route_name(),
            method = self.method,
            status = self.status.as_u16(),
            upstream_status = self.upstream_status.map(|status| status.as_u16()),
            code = self.code,
            caller = self.caller.as_ref().map(Caller::as_str),
            bytes = self.bytes,
            duration_us = duration.as_micros() as u64,
            upstream_us = self.upstream.as_micros() as u64,
            "exchange"
        );
    }
}

/// An answer's body together with its entry. hyper does not ask a body for more while its peer takes nothing, so no
/// timer inside the body would run then: a watch from outside lets go of everything at the deadline.
pub struct Told {
    /// `None`: given up.
    parts: Arc<Mutex<Option<(Outgoing, Entry)>>>,
    watch: Option<AbortHandle>,
}

impl Told {
    fn new(body: Outgoing, entry: Entry) -> Told {
        let (empty, deadline) = (body.is_end_stream(), entry.deadline);
        let parts = Arc::new(Mutex::new(Some((body, entry))));
        let watched = parts.clone();
        let watch = (!empty).then(|| {
            let give_up = async move {
                tokio::time::sleep_until(deadline.into()).await;
                drop(lock(&watched).take());
            };
            tokio::spawn(give_up).abort_handle()
        });
        Told { parts, watch }
    }
}

fn lock(parts: &Mutex<Option<(Outgoing, Entry)>>) -> MutexGuard<'_, Option<(Outgoing, Entry)>> {
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
        let Some((body, entry)) = &mut *parts else {
            return Poll::Ready(Some(Err(Failure::Upstream(UpstreamError::Slow))));
        };
        let next = Pin::new(&mut *body).poll_frame(cx);
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
        lock(&self.parts).as_ref().is_some_and(|(body, _)| body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        lock(&self.parts).as_ref().map(|(body, _)| body.size_hint()).unwrap_or_default()
    }
}
