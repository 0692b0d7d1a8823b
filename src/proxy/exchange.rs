//! One exchange, as a page: what happens to a request and its answer, in the order in which it must happen.
//!
//! Everything is decided before a byte of the body is asked for, so a client that waits for `100 Continue` never uploads
//! what is refused. Nothing crosses except through `hygiene`, `rewrite::url` and a `Rewriter`.

use super::Shared;
use super::audit::Occasion;
use super::body::{Outgoing, Patience, Recorder, Rewriting, Upload};
use super::entry::{Entry, Told, method_word};
use super::hygiene::{self, Clean};
use super::limits::{HOLD_BYTES, LINGER_BYTES_MAX, LINGER_TIMEOUT};
use super::metrics::Direction;
use super::respond::{self, CallerError, Failure, OwnError};
use super::settings::Route;
use crate::names::Caller;
use crate::policy::Permit;
use crate::rewrite::{self, Rewriter};
use http::{HeaderMap, HeaderValue, Method, Request, Response, Version, header, request};
use http_body::Body;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Answers one request, always: with the upstream's answer rewritten, or with a reason.
pub async fn exchange(shared: Arc<Shared>, caller: Option<Caller>, request: Request<Incoming>) -> Response<Told> {
    let (parts, body) = request.into_parts();
    let mut entry = Entry::new(&shared, caller.as_ref(), &parts.method);
    let mut body = Some(body);
    let answer = match attempt(&shared, caller.as_ref(), &parts, &mut body, &mut entry).await {
        Ok(answer) => answer,
        Err(failure) => {
            entry.failed(&failure);
            linger(&parts, body).await;
            respond::answer(&failure)
        }
    };
    entry.seal(answer)
}

/// caller → hygiene → route → plan → line and headers → body → forward → answer → audit. The caller is known since the
/// handshake; counting and the access log are the entry's.
async fn attempt(
    shared: &Shared,
    caller: Option<&Caller>,
    parts: &request::Parts,
    body: &mut Option<Incoming>,
    entry: &mut Entry,
) -> Result<Response<Outgoing>, Failure> {
    let has_body = body.as_ref().is_some_and(|body| !body.is_end_stream());
    let clean = hygiene::request(parts, has_body)?;
    let plan = plan(shared, caller, parts, &clean)?;
    entry.routed(plan.route);
    entry.ends(plan.deadline.into());
    entry.holds(shared.slots.clone().try_acquire_owned().map_err(|_| Failure::Own(OwnError::Overloaded))?);

    let (outgoing, upload) = rewrite_request(shared, &plan, &clean, body).await?;
    let started = Instant::now();
    let upstream = &shared.upstreams[plan.index];
    let sent = upstream.send(clean.method.clone(), &plan.target, plan.headers.clone(), outgoing, &upload);
    let answer = tokio::time::timeout_at(plan.deadline, sent)
        .await
        .unwrap_or(Err(Failure::Upstream(respond::UpstreamError::Slow)))?;
    entry.answered(answer.status(), started.elapsed());

    rewrite_answer(shared, &plan, &clean.method, answer, upload).await
}

/// What was decided about an exchange before its body is read.
struct Plan<'a> {
    route: &'a Arc<Route>,
    index: usize,
    permit: Option<Arc<Permit>>,
    target: String,
    headers: HeaderMap,
    interaction: &'static str,
    deadline: Instant,
}

fn plan<'a>(
    shared: &'a Shared,
    caller: Option<&Caller>,
    parts: &request::Parts,
    clean: &Clean,
) -> Result<Plan<'a>, Failure> {
    let path = clean.target.split('?').next().unwrap_or_default();
    let (index, route) = shared.settings.route(&clean.host, path).ok_or(Failure::Caller(CallerError::Route))?;
    if clean.method == Method::PUT && !route.updates {
        return Err(Failure::Caller(CallerError::LossyUpdate));
    }
    let purpose = hygiene::purpose(&parts.headers);
    let permit = caller.and_then(|caller| shared.settings.policy.permit(caller, &route.name, purpose.as_ref()));
    let below = route.below(&clean.target).ok_or(Failure::Caller(CallerError::Route))?;
    let target = rewrite::url::request(&route.engine, clean.method.as_str(), below)
        .map_err(|refusal| Failure::Request(Arc::new(refusal)))?;
    let headers = hygiene::request_headers(route, parts, clean, below, permit.is_some())?;
    let deadline = Instant::now() + route.upstream.whole;
    let interaction = hygiene::interaction(&clean.method, below);
    Ok(Plan { route, index, permit: permit.map(Arc::new), target, headers, interaction, deadline })
}

/// The request's body, rewritten. Up to [`HOLD_BYTES`] are held, so that the upstream never hears of a small refused one.
async fn rewrite_request(
    shared: &Shared,
    plan: &Plan<'_>,
    clean: &Clean,
    body: &mut Option<Incoming>,
) -> Result<(Outgoing, Arc<Upload>), Failure> {
    let Some(media) = &clean.media else { return Ok((Outgoing::empty(), Upload::done())) };
    let Some(source) = body.take() else { return Ok((Outgoing::empty(), Upload::done())) };
    let upload = Arc::new(Upload::default());
    let rewriting = Rewriting::new(
        source,
        Rewriter::pseudonymize(plan.route.engine.clone(), media.format),
        Direction::Request,
        None,
        upload.clone(),
        Patience::until(plan.deadline),
        shared.metrics.clone(),
        &plan.route.name,
    );
    match rewriting.hold(HOLD_BYTES).await {
        Ok((outgoing, _)) => Ok((outgoing, upload)),
        Err((failure, rest)) => {
            *body = Some(*rest);
            Err(failure)
        }
    }
}

/// The upstream's answer, rewritten as far as the permit reaches. What it reveals is recorded before it leaves: a small
/// body with its headers in one record, a long one batch by batch.
async fn rewrite_answer(
    shared: &Shared,
    plan: &Plan<'_>,
    method: &Method,
    answer: Response<Incoming>,
    upload: Arc<Upload>,
) -> Result<Response<Outgoing>, Failure> {
    let (parts, source) = answer.into_parts();
    let route = plan.route;
    let clean = hygiene::answer(route, method, &parts, !source.is_end_stream(), plan.permit.as_deref())?;
    let mut recorder = match (&plan.permit, &shared.audit) {
        (Some(permit), Some(audit)) => {
            let (audit, permit) = (audit.clone(), permit.clone());
            let occasion =
                Occasion { route: route.name.clone(), method: method_word(method), interaction: plan.interaction };
            Some(Recorder { audit, permit, occasion, head: clean.report, batches: 0 })
        }
        (Some(_), None) => return Err(Failure::Own(OwnError::AuditUnwritable)),
        (None, _) => None,
    };
    let (outgoing, unsealed) = match (&clean.media, &mut recorder) {
        (None, None) => (Outgoing::empty(), false),
        (None, Some(recorder)) => recorder.head().await.map(|()| (Outgoing::empty(), false))?,
        (Some(media), _) => {
            let rewriter = Rewriter::reidentify(route.engine.clone(), media.format, plan.permit.clone());
            let (patience, metrics) = (Patience::until(plan.deadline), shared.metrics.clone());
            let rewriting =
                Rewriting::new(source, rewriter, Direction::Answer, recorder, upload, patience, metrics, &route.name);
            rewriting.hold(HOLD_BYTES).await.map_err(|(failure, _)| failure)?
        }
    };
    let mut response = Response::new(outgoing);
    *response.status_mut() = parts.status;
    *response.headers_mut() = clean.headers;
    if unsealed {
        response.headers_mut().insert(header::WARNING, HeaderValue::from_static(UNSEALED));
    }
    Ok(response)
}

/// Said of an answer in which dates stay shifted though the caller may unshift (RFC 7234 §5.5, code 299).
const UNSEALED: &str = "299 cryptonym \"some dates are shifted: their resources bear no valid seal\"";

/// Takes in a little of a refused body, so that the refusal is not destroyed by the reset of a socket that is closed over
/// unread bytes. Not if the client waits to be asked: asking would make it upload what was refused.
async fn linger(parts: &request::Parts, body: Option<Incoming>) {
    let Some(mut body) = body else { return };
    if parts.version >= Version::HTTP_2 || parts.headers.contains_key(header::EXPECT) {
        return;
    }
    let drained = async {
        let mut bytes = 0;
        while let Some(Ok(frame)) = body.frame().await {
            bytes += frame.data_ref().map_or(0, |data| data.len());
            if bytes > LINGER_BYTES_MAX {
                break;
            }
        }
    };
    let patience: Duration = LINGER_TIMEOUT;
    let _ = tokio::time::timeout(patience, drained).await; // whatever is left goes down with the connection
}
