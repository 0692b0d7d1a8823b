//! The seam between the asynchronous shell and the core: a body that passes through a `Rewriter`.
//!
//! What leaves here has been rewritten, and what was revealed in it has been recorded. A body that is refused, cut or
//! late yields an error, never an end: hyper then leaves out the last chunk (HTTP/1) or resets the stream (HTTP/2), so no
//! peer can take half a message for a whole one. Nothing is spawned: if nobody reads, nothing is read.

use super::audit::{Audit, Occasion, Reveal};
use super::limits::{BATCH_BYTES, BODY_STALL_TIMEOUT, PACKED_BYTES_MIN, TURN_BYTES};
use super::metrics::{Direction, Metrics};
use super::respond::{CallerError, Failure, OwnError, UpstreamError};
use super::upstream::Place;
use crate::encoding::stream::{Decoder, Encoder, Fault, Packing};
use crate::policy::Permit;
use crate::rewrite::{Refusal, Report, Rewriter};
use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, Sleep};

/// A body on its way out, in either direction.
pub enum Outgoing {
    /// All there is, possibly nothing: its length is known, so no chunks are needed.
    Whole(Option<Bytes>),
    /// Too long to hold.
    Stream(Box<Rewriting>),
}

impl Outgoing {
    /// No body.
    pub fn empty() -> Outgoing {
        Outgoing::Whole(None)
    }

    /// Puts the body into a coding, unless it is too small to gain by it. Says whether it did.
    pub fn pack(&mut self, packing: Packing) -> std::io::Result<bool> {
        match self {
            Outgoing::Whole(Some(bytes)) if bytes.len() >= PACKED_BYTES_MIN => {
                *bytes = Encoder::new(packing)?.finish(bytes)?.into();
            }
            Outgoing::Whole(_) => return Ok(false),
            Outgoing::Stream(rewriting) => rewriting.encode(Encoder::new(packing)?),
        }
        Ok(true)
    }

    /// These bytes.
    pub fn whole(bytes: Bytes) -> Outgoing {
        Outgoing::Whole(Some(bytes).filter(|bytes| !bytes.is_empty()))
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        match &mut *self {
            Outgoing::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Outgoing::Stream(rewriting) => rewriting.poll_batch(cx).map(|next| next.map(|r| r.map(Frame::data))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Outgoing::Whole(bytes) => bytes.is_none(),
            Outgoing::Stream(rewriting) => matches!(rewriting.state, State::Ended),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Outgoing::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Outgoing::Stream(_) => SizeHint::default(),
        }
    }
}

/// What the two ends of an upload tell each other.
#[derive(Default)]
pub struct Upload {
    failure: OnceLock<Failure>,
    ended: Notify,
    /// Batches that were let go.
    batches: AtomicU64,
    /// The next batch is not there yet: who waits is not the upstream.
    awaited: AtomicBool,
}

impl Upload {
    /// An upload that is already whole.
    pub fn done() -> Arc<Upload> {
        let upload = Upload::default();
        upload.ended.notify_one();
        Arc::new(upload)
    }

    /// Why it broke off, if it did.
    pub fn failure(&self) -> Option<Failure> {
        self.failure.get().cloned()
    }

    /// How many batches it has taken, if it is the upstream that has not asked for more.
    pub fn untaken(&self) -> Option<u64> {
        (!self.awaited.load(Ordering::Relaxed)).then(|| self.batches.load(Ordering::Relaxed))
    }

    /// Returns once nothing more is to be sent.
    pub async fn ended(&self) {
        self.ended.notified().await;
    }
}

/// What is needed to let go of what a permit revealed.
pub struct Recorder {
    /// Where it is recorded.
    pub audit: Audit,
    /// Under which permit.
    pub permit: Arc<Permit>,
    /// On what occasion.
    pub occasion: Occasion,
    /// What the head that goes before the body reveals, until it is recorded.
    pub head: Report,
    /// Records so far.
    pub batches: u64,
}

impl Recorder {
    /// Records what the head shows, unless a record of the body already did.
    pub async fn head(&mut self) -> Result<(), Failure> {
        let head = std::mem::take(&mut self.head);
        if head.reveals_anything() { self.record(head).await } else { Ok(()) }
    }

    fn record(&mut self, report: Report) -> Recording {
        let reveal = Reveal::new(&self.permit, &self.occasion, self.batches, report);
        self.batches += 1;
        let audit = self.audit.clone();
        Box::pin(async move { audit.record(reveal).await })
    }
}

type Recording = Pin<Box<dyn Future<Output = Result<(), Failure>> + Send>>;

/// Times that bound a body.
pub struct Patience {
    /// The exchange's end.
    pub deadline: Instant,
    /// Longest pause. See [`BODY_STALL_TIMEOUT`].
    pub stall: Duration,
}

impl Patience {
    /// Until this moment, with the usual pause.
    pub fn until(deadline: Instant) -> Patience {
        Patience { deadline, stall: BODY_STALL_TIMEOUT }
    }
}

enum State {
    /// More is to come.
    Reading,
    /// A batch waits for its record.
    Recording(Recording, Bytes),
    /// The rewriter finished, and everything was let go.
    Ended,
    /// Broken off, for good.
    Failed(Failure),
}

/// A body that is being rewritten.
pub struct Rewriting {
    source: Incoming,
    /// Reads the source's content coding, if it has one.
    decoder: Option<Decoder>,
    /// Of the source, not yet decoded.
    coded: Bytes,
    /// Room for what one step decodes.
    plain: Vec<u8>,
    /// Writes the coding that the reader takes, once it was chosen.
    encoder: Option<Encoder>,
    rewriter: Rewriter,
    /// Rewritten, not yet let go.
    output: Vec<u8>,
    /// Plain bytes of the source so far.
    taken: u64,
    /// The rewriter has accepted the end.
    finished: bool,
    state: State,
    direction: Direction,
    recorder: Option<Recorder>,
    /// Of the request: written if this is the request's body, heeded if it is the answer's.
    upload: Arc<Upload>,
    stall: Pin<Box<Sleep>>,
    /// A batch was let go since the source was last asked: the time its reader took is not the source's pause.
    rested: bool,
    patience: Patience,
    metrics: Arc<Metrics>,
    route: String,
    working: Duration,
    /// Of an answer: what it holds at its endpoint. Last, so that the source is let go before.
    _place: Option<Place>,
}

impl Rewriting {
    /// Binds a body to its rewriter. Nothing is read yet.
    pub fn new(
        source: Incoming,
        decoder: Option<Decoder>,
        rewriter: Rewriter,
        direction: Direction,
        recorder: Option<Recorder>,
        upload: Arc<Upload>,
        patience: Patience,
        metrics: Arc<Metrics>,
        route: &str,
    ) -> Rewriting {
        let stall = Box::pin(tokio::time::sleep_until(patience.deadline.min(Instant::now() + patience.stall)));
        Rewriting {
            source,
            decoder,
            coded: Bytes::new(),
            plain: Vec::new(),
            encoder: None,
            rewriter,
            output: Vec::new(),
            taken: 0,
            finished: false,
            state: State::Reading,
            direction,
            recorder,
            upload,
            stall,
            rested: false,
            patience,
            metrics,
            route: route.to_owned(),
            working: Duration::ZERO,
            _place: None,
        }
    }

    /// An answer's place at its endpoint, given back with its last byte.
    pub fn over(self, place: Place) -> Rewriting {
        Rewriting { _place: Some(place), ..self }
    }

    /// Reads until the end or until `bytes_max` are rewritten. A body that ends within is whole, recorded and its length
    /// known; a refusal within gives back what is left of the source, so that the connection can be wound up.
    /// Also tells whether a resource within kept shifted dates for want of a valid seal: the head can still say so.
    pub async fn hold(mut self, bytes_max: usize) -> Result<(Outgoing, bool), (Failure, Box<Incoming>)> {
        let filled = poll_fn(|cx| self.poll_fill(cx, bytes_max)).await;
        let unsealed = self.rewriter.unsealed() > 0;
        let whole = match filled {
            Ok(()) if !self.finished => {
                self.output.shrink_to_fit(); // its reader may let it wait
                // The head leaves before the first batch, so it has a record of its own.
                let recorded = match &mut self.recorder {
                    Some(recorder) => recorder.head().await,
                    None => Ok(()),
                };
                return match recorded {
                    Ok(()) => Ok((Outgoing::Stream(Box::new(self)), unsealed)),
                    Err(failure) => Err((self.fail(failure), Box::new(self.source))),
                };
            }
            Ok(()) => poll_fn(|cx| self.poll_batch(cx)).await.transpose(),
            Err(failure) => Err(self.fail(failure)),
        };
        match whole {
            Ok(bytes) => Ok((Outgoing::whole(bytes.unwrap_or_default()), unsealed)),
            Err(failure) => Err((failure, Box::new(self.source))),
        }
    }

    /// From now on batches leave in this coding.
    fn encode(&mut self, encoder: Encoder) {
        self.encoder = Some(encoder);
    }

    /// A batch in the reader's coding, if it has one.
    fn pack(&mut self, bytes: Bytes) -> Result<Bytes, Failure> {
        let packed = match (self.encoder.take(), self.finished) {
            (None, _) => return Ok(bytes),
            (Some(encoder), true) => encoder.finish(&bytes),
            (Some(mut encoder), false) => {
                let packed = encoder.write(&bytes);
                self.encoder = Some(encoder);
                packed
            }
        };
        packed.map(Bytes::from).map_err(|_| Failure::Own(OwnError::Uncoded))
    }

    /// The next batch that may leave.
    fn poll_batch(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Failure>>> {
        loop {
            match &mut self.state {
                State::Reading => {
                    let filled = self.poll_fill(cx, BATCH_BYTES);
                    match filled {
                        Poll::Ready(Ok(())) => {}
                        Poll::Ready(Err(failure)) => return Poll::Ready(Some(Err(self.fail(failure)))),
                        Poll::Pending if self.output.is_empty() => {
                            self.awaits(true);
                            return Poll::Pending;
                        }
                        Poll::Pending => {} // the sender pauses: what is ready need not wait for more
                    }
                    if let Err(failure) = self.settle() {
                        return Poll::Ready(Some(Err(self.fail(failure))));
                    }
                }
                State::Recording(record, bytes) => {
                    let bytes = std::mem::take(bytes);
                    match record.as_mut().poll(cx) {
                        Poll::Pending => {
                            let State::Recording(_, waiting) = &mut self.state else { unreachable!("matched above") };
                            *waiting = bytes;
                            return Poll::Pending;
                        }
                        Poll::Ready(Err(failure)) => return Poll::Ready(Some(Err(self.fail(failure)))),
                        Poll::Ready(Ok(())) => {
                            let packed = self.release(&bytes).and_then(|()| self.pack(bytes));
                            let bytes = match packed {
                                Ok(bytes) => bytes,
                                Err(failure) => return Poll::Ready(Some(Err(self.fail(failure)))),
                            };
                            if !bytes.is_empty() {
                                return Poll::Ready(Some(Ok(bytes)));
                            }
                        }
                    }
                }
                State::Ended => return Poll::Ready(None),
                State::Failed(failure) => return Poll::Ready(Some(Err(failure.clone()))),
            }
        }
    }

    /// Rewrites until `want` bytes are ready, the end has come, or others should have their turn.
    fn poll_fill(&mut self, cx: &mut Context<'_>, want: usize) -> Poll<Result<(), Failure>> {
        let turn = self.taken + TURN_BYTES as u64;
        while !self.finished && self.output.len() < want {
            if self.taken >= turn {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            match self.unpack() {
                Ok(false) => {}
                Ok(true) => continue,
                Err(failure) => return Poll::Ready(Err(failure)),
            }
            let frame = Pin::new(&mut self.source).poll_frame(cx);
            if frame.is_ready() || std::mem::take(&mut self.rested) {
                let next = Instant::now() + self.patience.stall;
                self.stall.as_mut().reset(next.min(self.patience.deadline));
            }
            let Poll::Ready(frame) = frame else {
                ready!(self.stall.as_mut().poll(cx));
                return Poll::Ready(Err(self.late()));
            };
            let done = match frame {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if self.decoder.is_some() => {
                        self.coded = data;
                        Ok(())
                    }
                    Ok(data) => self.rewrite(&data),
                    Err(_) => Ok(()), // trailers could carry anything and are no part of FHIR: they end here
                },
                Some(Err(_)) => Err(self.cut()),
                None => self.end(),
            };
            if let Err(failure) = done {
                return Poll::Ready(Err(failure));
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Decodes and rewrites a step of what has come in. `false`: there is nothing to decode.
    fn unpack(&mut self) -> Result<bool, Failure> {
        let Some(decoder) = &mut self.decoder else { return Ok(false) };
        let mut plain = std::mem::take(&mut self.plain);
        plain.clear();
        let step = decoder.step(&self.coded, &mut plain);
        let taken = step.map_err(|fault| self.undecodable(fault))?;
        self.coded.advance(taken);
        let rewritten = self.rewrite(&plain);
        let moved = taken > 0 || !plain.is_empty();
        self.plain = plain;
        rewritten.map(|()| moved)
    }

    fn rewrite(&mut self, data: &[u8]) -> Result<(), Failure> {
        self.taken += data.len() as u64;
        let started = Instant::now();
        let done = self.rewriter.write(data, &mut self.output);
        self.working += started.elapsed();
        done.map_err(|refusal| self.refused(refusal))
    }

    /// The source has ended, and so must its coding and its document.
    fn end(&mut self) -> Result<(), Failure> {
        self.finished = true;
        if let Some(mut decoder) = self.decoder.take() {
            let mut rest = Vec::new();
            decoder.finish(&mut rest).map_err(|fault| self.undecodable(fault))?;
            self.rewrite(&rest)?;
        }
        let started = Instant::now();
        let done = self.rewriter.finish(&mut self.output);
        self.working += started.elapsed();
        done.map_err(|refusal| self.refused(refusal))
    }

    fn refused(&self, refusal: Refusal) -> Failure {
        match self.direction {
            Direction::Request => Failure::Request(Arc::new(refusal)),
            Direction::Answer => Failure::Answer(Arc::new(refusal)),
        }
    }

    fn undecodable(&self, fault: Fault) -> Failure {
        match (self.direction, fault) {
            (Direction::Request, Fault::Damaged) => Failure::Caller(CallerError::Undecodable),
            (Direction::Request, Fault::Expands) => Failure::Caller(CallerError::Expands),
            (Direction::Answer, _) => Failure::Upstream(UpstreamError::Undecodable),
        }
    }

    /// Decides about everything that is ready: a record first if it reveals. Ends the body if that was all.
    fn settle(&mut self) -> Result<(), Failure> {
        let bytes = Bytes::from(std::mem::take(&mut self.output));
        let mut report = self.rewriter.take_report();
        self.metrics.count(&report);
        if self.finished
            && let Some(recorder) = &mut self.recorder
        {
            report.add(std::mem::take(&mut recorder.head)); // still there only if the whole body was held behind its head
        }
        let record: Recording = if report.reveals_anything() {
            // Without a recorder there was no permit, and without a permit nothing is revealed; if it was, it stays here.
            let recorder = self.recorder.as_mut().ok_or(Failure::Own(OwnError::AuditUnwritable))?;
            recorder.record(report)
        } else {
            Box::pin(std::future::ready(Ok(())))
        };
        self.state = State::Recording(record, bytes);
        Ok(())
    }

    /// Lets go of bytes whose record is durable; with the last of them the body ends.
    fn release(&mut self, bytes: &Bytes) -> Result<(), Failure> {
        if let (Direction::Answer, Some(failure)) = (self.direction, self.upload.failure()) {
            // The upstream answers a request that was never whole: its word about it is not worth passing on.
            return Err(failure);
        }
        let labels = [self.route.as_str(), self.direction.as_str()];
        self.metrics.body_bytes.with_label_values(&labels).inc_by(bytes.len() as u64);
        self.awaits(false);
        self.rested = true;
        self.state = State::Reading;
        if self.finished {
            self.state = State::Ended;
            self.conclude();
        }
        Ok(())
    }

    /// Of a request: tells whether the upstream waits for it, or it for the upstream.
    fn awaits(&self, awaited: bool) {
        if self.direction == Direction::Request {
            self.upload.awaited.store(awaited, Ordering::Relaxed);
            self.upload.batches.fetch_add(u64::from(!awaited), Ordering::Relaxed);
        }
    }

    fn conclude(&mut self) {
        let labels = [self.route.as_str(), self.direction.as_str()];
        self.metrics.rewrite_duration.with_label_values(&labels).observe(self.working.as_secs_f64());
        if self.direction == Direction::Request {
            self.upload.ended.notify_one();
        }
    }

    fn fail(&mut self, failure: Failure) -> Failure {
        self.output = Vec::new();
        if self.direction == Direction::Request {
            let _ = self.upload.failure.set(failure.clone()); // the first reason is the reason
        }
        self.state = State::Failed(failure.clone());
        self.conclude();
        failure
    }

    fn cut(&self) -> Failure {
        match self.direction {
            Direction::Request => Failure::Caller(CallerError::Cut),
            Direction::Answer => Failure::Upstream(UpstreamError::Cut),
        }
    }

    fn late(&self) -> Failure {
        match self.direction {
            Direction::Request => Failure::Caller(CallerError::Stalled),
            Direction::Answer => Failure::Upstream(UpstreamError::Slow),
        }
    }
}
