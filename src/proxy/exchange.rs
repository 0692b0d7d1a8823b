//! One exchange, as a page: what happens to a request and its answer, in the order in which it must happen.
//!
//! Everything is decided before a byte of the body is asked for, so a client that waits for `100 Continue` never uploads
//! what is refused. Nothing crosses except through `hygiene`, `rewrite::url` and a `Rewriter`.

use super::audit::Occasion;
use super::body::{Outgoing, Patience, Recorder, Rewriting, Upload};
use super::entry::{Entry, Told, method_word};
use super::hygiene::{self, Clean};
use super::limits::{HOLD_BYTES, LINGER_BYTES_MAX, LINGER_TIMEOUT};
use super::metrics::Direction;
use super::respond::{self, CallerError, Failure, OwnError, UpstreamError};
use super::settings::{Route, Untrusted};
use super::tls::Identity;
use super::upstream::{self, Place};
use super::{Serving, Shared};
use crate::encoding::stream::{Coding, Decoder, Packing};
use crate::names::Caller;
use crate::policy::Permit;
use crate::rewrite::{self, Code, Format, Refusal, Report, Rewriter};
use crate::secret::SecretKey;
use http::{HeaderMap, HeaderValue, Method, Request, Response, Version, header, request};
use http_body::Body;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Answers one request, always: with the upstream's answer rewritten, or with a reason.
pub async fn exchange(
    shared: Arc<Shared>,
    identity: Option<Arc<Identity>>,
    request: Request<Incoming>,
) -> Response<Told> {
    let (parts, body) = request.into_parts();
    let serving = shared.serving.load_full(); // one set of settings from here to the last byte
    let caller = identity.and_then(|identity| serving.settings.caller(&identity));
    let mut entry = Entry::new(&shared, caller.as_ref(), &parts.method);
    let mut body = Some(body);
    let answer = match attempt(&shared, &serving, caller.as_ref(), &parts, &mut body, &mut entry).await {
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
    serving: &Serving,
    caller: Option<&Caller>,
    parts: &request::Parts,
    body: &mut Option<Incoming>,
    entry: &mut Entry,
) -> Result<Response<Outgoing>, Failure> {
    let has_body = body.as_ref().is_some_and(|body| !body.is_end_stream());
    let clean = hygiene::request(parts, has_body)?;
    let plan = plan(serving, caller, parts, &clean, entry)?;
    entry.ends(plan.deadline.into());
    entry.stalls(serving.settings.limits.stall);
    entry.holds(shared.slots.clone().try_acquire_owned().map_err(|_| Failure::Own(OwnError::Overloaded))?);

    if plan.route.untrusted == Untrusted::Upstream {
        entry.asks(&plan.target); // what callers outside ask is real on its way in: no path is logged
    }
    let (outgoing, upload) = rewrite_request(shared, serving, &plan, &clean, body).await?;
    let started = Instant::now();
    let sent =
        serving.upstreams[plan.index].send(clean.method.clone(), &plan.target, plan.headers.clone(), outgoing, &upload);
    let (answer, place) =
        tokio::time::timeout_at(plan.deadline, sent).await.unwrap_or(Err(Failure::Upstream(UpstreamError::Slow)))?;
    entry.answered(answer.status(), started.elapsed());

    let packing = hygiene::packing(plan.route, &parts.headers);
    rewrite_answer(shared, serving, &plan, &clean.method, packing, answer, place, upload).await
}

/// What was decided about an exchange before its body is read.
struct Plan<'a> {
    route: &'a Arc<Route>,
    index: usize,
    caller: &'a str,
    permit: Option<Arc<Permit>>,
    /// What line and headers of the request resolve.
    head: Report,
    target: String,
    headers: HeaderMap,
    interaction: &'static str,
    deadline: Instant,
}

impl Plan<'_> {
    /// The permit, if it is about this message: the one that goes to the side that may know.
    fn permit(&self, message: Direction) -> Option<&Arc<Permit>> {
        let inward = match self.route.untrusted {
            Untrusted::Upstream => Direction::Answer,
            Untrusted::Downstream => Direction::Request,
        };
        self.permit.as_ref().filter(|_| message == inward)
    }

    /// The rewriter of a message: outward, or as far inward as the permit reaches.
    fn rewriter(&self, message: Direction, format: Format) -> Result<Rewriter, Failure> {
        match (self.route.untrusted, message) {
            (Untrusted::Upstream, Direction::Request) => outward(self.route, format),
            (Untrusted::Downstream, Direction::Answer) => {
                outward(self.route, format).map(|rewriter| rewriter.answering(self.caller))
            }
            (Untrusted::Upstream, Direction::Answer) | (Untrusted::Downstream, Direction::Request) => {
                Ok(Rewriter::reidentify(self.route.engine.clone(), format, self.permit(message).cloned()))
            }
        }
    }

    /// What records the message's reveals, if it may reveal anything; `head`: what goes before its body.
    fn recorder(
        &self,
        serving: &Serving,
        message: Direction,
        method: &Method,
        head: Report,
    ) -> Result<Option<Recorder>, Failure> {
        let Some(permit) = self.permit(message) else { return Ok(None) };
        let audit = serving.audit.clone().ok_or(Failure::Own(OwnError::AuditUnwritable))?;
        let route = self.route.name.clone();
        let occasion = Occasion { route, method: method_word(method), interaction: self.interaction };
        Ok(Some(Recorder { audit, permit: permit.clone(), occasion, head, batches: 0 }))
    }
}

fn plan<'a>(
    serving: &'a Serving,
    caller: Option<&'a Caller>,
    parts: &request::Parts,
    clean: &Clean,
    entry: &mut Entry,
) -> Result<Plan<'a>, Failure> {
    let path = clean.target.split('?').next().unwrap_or_default();
    let (index, route) = serving.settings.route(&clean.host, path).ok_or(Failure::Caller(CallerError::Route))?;
    entry.routed(route); // before anything can be refused in its name
    if clean.method == Method::PUT && !route.updates {
        return Err(Failure::Caller(CallerError::LossyUpdate));
    }
    let purpose = hygiene::purpose(&parts.headers);
    let permit = caller.and_then(|caller| serving.settings.policy.permit(caller, &route.name, purpose.as_ref()));
    let below = route.below(&clean.target).ok_or(Failure::Caller(CallerError::Route))?;
    let (name, mut head) = (caller.map_or("", Caller::as_str), Report::default());
    let (engine, method) = (&route.engine, clean.method.as_str());
    let target = match route.untrusted {
        Untrusted::Upstream => rewrite::url::request(engine, method, below),
        Untrusted::Downstream => rewrite::url::resolve(engine, method, below, name, permit.as_ref(), &mut head),
    };
    let target = target.map_err(|refusal| Failure::Request(Arc::new(refusal)))?;
    let headers = hygiene::request_headers(route, parts, clean, below, permit.as_ref(), &mut head)?;
    let deadline = Instant::now() + route.upstream.whole;
    let interaction = hygiene::interaction(&clean.method, below);
    Ok(Plan { route, index, caller: name, permit: permit.map(Arc::new), head, target, headers, interaction, deadline })
}

/// A rewriter to the untrusted side, with a key of this exchange where rules hash within one (`scope: document`). Without randomness nothing crosses.
fn outward(route: &Route, format: Format) -> Result<Rewriter, Failure> {
    let rewriter = Rewriter::pseudonymize(route.engine.clone(), format);
    if !route.engine.rules().needs_document_key() {
        return Ok(rewriter);
    }
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).map_err(|_| Failure::Request(Arc::new(Refusal::of(Code::NoDocumentKey, "body"))))?;
    Ok(rewriter.within(&SecretKey::new(secret)))
}

/// The request's body, rewritten. Up to [`HOLD_BYTES`] are held, so that the upstream never hears of a small refused one.
async fn rewrite_request(
    shared: &Shared,
    serving: &Serving,
    plan: &Plan<'_>,
    clean: &Clean,
    body: &mut Option<Incoming>,
) -> Result<(Outgoing, Arc<Upload>), Failure> {
    let mut recorder = plan.recorder(serving, Direction::Request, &clean.method, plan.head.clone())?;
    let (Some(media), Some(source)) = (&clean.media, body.take_if(|_| clean.media.is_some())) else {
        if let Some(recorder) = &mut recorder {
            recorder.head().await?;
        }
        return Ok((Outgoing::empty(), Upload::done()));
    };
    let upload = Arc::new(Upload::default());
    let decoder = decoder(clean.coding, Failure::Caller(CallerError::Undecodable))?;
    let rewriting = Rewriting::new(
        source,
        decoder,
        plan.rewriter(Direction::Request, media.format)?,
        Direction::Request,
        recorder,
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
    serving: &Serving,
    plan: &Plan<'_>,
    method: &Method,
    packing: Option<Packing>,
    answer: Response<Incoming>,
    place: Place,
    upload: Arc<Upload>,
) -> Result<Response<Outgoing>, Failure> {
    let (parts, source) = answer.into_parts();
    let (route, permit) = (plan.route, plan.permit(Direction::Answer));
    let asked = upstream::below(&route.upstream.path, &plan.target)?;
    let permitted = permit.map(Arc::as_ref);
    let clean = hygiene::answer(route, method, asked.path(), &parts, !source.is_end_stream(), permitted)?;
    let mut recorder = plan.recorder(serving, Direction::Answer, method, clean.report)?;
    let packing = packing.filter(|_| permit.is_none());
    let mut packed = false;
    let (mut outgoing, unsealed) = match (&clean.media, &mut recorder) {
        (None, None) => (Outgoing::empty(), false),
        (None, Some(recorder)) => recorder.head().await.map(|()| (Outgoing::empty(), false))?,
        (Some(media), _) => {
            let decoder = decoder(clean.coding, Failure::Upstream(UpstreamError::Undecodable))?;
            let rewriter = plan.rewriter(Direction::Answer, media.format)?;
            let patience = Patience { deadline: plan.deadline, stall: route.upstream.progress };
            let metrics = shared.metrics.clone();
            let rewriting = Rewriting::new(
                source,
                decoder,
                rewriter,
                Direction::Answer,
                recorder,
                upload,
                patience,
                metrics,
                &route.name,
            );
            rewriting.over(place).hold(HOLD_BYTES).await.map_err(|(failure, _)| failure)?
        }
    };
    if let Some(packing) = packing {
        packed = outgoing.pack(packing).map_err(|_| Failure::Own(OwnError::Uncoded))?;
    }
    let mut response = Response::new(outgoing);
    *response.status_mut() = parts.status;
    *response.headers_mut() = clean.headers;
    if let Some(packing) = packing.filter(|_| packed) {
        response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static(packing.name()));
    }
    if unsealed {
        response.headers_mut().insert(header::WARNING, HeaderValue::from_static(UNSEALED));
    }
    Ok(response)
}

/// What reads a body's coding.
fn decoder(coding: Option<Coding>, otherwise: Failure) -> Result<Option<Decoder>, Failure> {
    coding.map(Decoder::new).transpose().map_err(|_| otherwise)
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
