//! The way to the untrusted side: which endpoint, how often, and when to give up.
//!
//! A request goes out once. It goes out again only if nothing of it was sent, or if it has no body and doing it twice is
//! doing it once; a FHIR create is neither, so what broke later is the caller's to decide. Nothing is tried again behind
//! the head of an answer. Who lets go of a send lets go of it upstream: a stream is reset, a connection closed. How
//! connections are kept is `pool`'s page, who is let near a failing endpoint is `health`'s.

pub mod health;
mod pool;

use super::body::{Outgoing, Upload};
use super::limits as l;
use super::metrics::Metrics;
use super::respond::{Failure, UpstreamError};
use super::settings;
use super::workers;
use health::{Circuit, Health};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use http_body::Body;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use pool::{Broken, Known, Pool};
use prometheus::{IntCounterVec, IntGauge};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use tokio::task::AbortHandle;

/// The endpoints of one service.
pub struct Upstream {
    endpoints: Vec<Arc<Endpoint>>,
    /// Where the next choice among equals begins.
    next: AtomicUsize,
    path: String,
    route: String,
    first_byte: Duration,
    progress: Duration,
    retries: IntCounterVec,
    /// What asks endpoints how they are; ends with this.
    keepers: Vec<AbortHandle>,
}

/// One place where the service is reached.
struct Endpoint {
    /// Each thread has its own connections, since what waits on one is woken where it was made.
    pools: Vec<OnceLock<Arc<Pool>>>,
    seed: Seed,
    /// What looks after idle connections; ends with this.
    sweepers: Mutex<Vec<AbortHandle>>,
    circuit: Mutex<Circuit>,
    /// There is no other.
    single: bool,
    /// 1 while its circuit is closed.
    up: IntGauge,
    /// Exchanges that it has now.
    held: AtomicUsize,
}

/// What of a request can be sent again.
#[derive(Clone)]
pub(super) struct Head {
    method: Method,
    target: PathAndQuery,
    headers: HeaderMap,
}

/// An exchange's place at its endpoint: given back when the last byte has come or it was given up.
pub struct Place {
    endpoint: Arc<Endpoint>,
    /// Of a connection that others use too.
    stream: Option<pool::Stream>,
}

impl Drop for Place {
    fn drop(&mut self) {
        drop(self.stream.take());
        self.endpoint.held.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Upstream {
    /// Opens no connection yet; so many workers will. Must be called inside a runtime.
    pub fn new(settings: &settings::Upstream, route: &str, threads: usize, metrics: &Arc<Metrics>) -> Upstream {
        let endpoints: Vec<_> = settings
            .origins
            .iter()
            .map(|origin| {
                let seed = Seed {
                    settings: settings.clone(),
                    route: route.to_owned(),
                    origin: origin.clone(),
                    metrics: metrics.clone(),
                    threads,
                    known: Known::new(settings),
                };
                let labels = [route, origin.as_str()];
                let up = metrics.upstream_up.with_label_values(&labels);
                up.set(1);
                Arc::new(Endpoint {
                    pools: (0..=threads).map(|_| OnceLock::new()).collect(),
                    seed,
                    sweepers: Mutex::default(),
                    circuit: Mutex::new(Circuit::new(settings.health.failures, settings.health.open)),
                    single: settings.origins.len() == 1,
                    up,
                    held: AtomicUsize::new(0),
                })
            })
            .collect();
        let mut keepers = Vec::new();
        for endpoint in &endpoints {
            if settings.health.path.is_some() {
                let asks = ask(endpoint.clone(), settings.path.clone(), settings.health.clone());
                keepers.push(tokio::spawn(asks).abort_handle());
            }
        }
        Upstream {
            endpoints,
            next: AtomicUsize::new(0),
            path: settings.path.clone(),
            route: route.to_owned(),
            first_byte: settings.first_byte,
            progress: settings.progress,
            retries: metrics.upstream_retries.clone(),
            keepers,
        }
    }

    /// Sends a request and returns the head of its answer. `target` is path and query below the upstream's base.
    /// A request whose body broke off fails with the reason of the break.
    pub async fn send(
        &self,
        method: Method,
        target: &str,
        headers: HeaderMap,
        body: Outgoing,
        upload: &Upload,
    ) -> Result<(Response<Incoming>, Place), Failure> {
        let head = Head { method, target: below(&self.path, target)?, headers };
        let mut repeatable = body.is_end_stream() && head.is_idempotent();
        let (mut body, mut fresh, mut tried) = (body, false, Vec::new());
        let late = self.late(upload);
        tokio::pin!(late);
        loop {
            let (index, endpoint) = self.choose(&tried)?;
            let mut place = endpoint.enter();
            let attempt = tokio::select! {
                attempt = endpoint.pool().exchange(&head, body, fresh) => attempt,
                () = &mut late => {
                    return Err(upload.failure().unwrap_or_else(|| {
                        endpoint.failed();
                        Failure::Upstream(UpstreamError::Slow)
                    }));
                }
            };
            let broken = match attempt {
                Ok((response, stream)) => {
                    endpoint.answered(response.status());
                    place.stream = stream;
                    return Ok((response, place));
                }
                Err(broken) => broken,
            };
            if let Some(failure) = upload.failure() {
                return Err(failure); // it broke because its body did
            }
            let unreachable = Failure::Upstream(UpstreamError::Unreachable);
            body = match broken {
                Broken::Unconnected(unsent) => {
                    endpoint.failed();
                    tried.push(index);
                    if tried.len() == self.endpoints.len() {
                        return Err(unreachable);
                    }
                    unsent
                }
                // Another's closing of a kept connection is no fault; a new one is made at once, and only once.
                Broken::Unsent(unsent) if !fresh => {
                    fresh = true;
                    unsent
                }
                Broken::Sent { legible } if repeatable && legible => {
                    (repeatable, fresh) = (false, true);
                    Outgoing::empty()
                }
                Broken::Unsent(_) | Broken::Sent { .. } => {
                    endpoint.failed();
                    return Err(unreachable);
                }
            };
            self.retries.with_label_values(&[self.route.as_str()]).inc();
        }
    }

    /// The endpoint with the fewest exchanges among those not tried, whose circuit lets one through.
    fn choose(&self, tried: &[usize]) -> Result<(usize, &Arc<Endpoint>), Failure> {
        let count = self.endpoints.len();
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        let mut order: Vec<usize> = (0..count)
            .map(|offset| first.wrapping_add(offset) % count)
            .filter(|index| !tried.contains(index))
            .collect();
        order.sort_by_key(|&index| self.endpoints[index].held.load(Ordering::Relaxed)); // stable: equals take turns
        let now = Instant::now();
        let mut soonest: Option<Duration> = None;
        for index in order {
            match self.endpoints[index].circuit().admit(now) {
                Ok(()) => return Ok((index, &self.endpoints[index])),
                Err(wait) => soonest = Some(soonest.map_or(wait, |soonest| soonest.min(wait))),
            }
        }
        // Whoever comes second here has tried the others: that they could not be reached is the answer.
        match soonest {
            Some(wait) if tried.is_empty() => Err(Failure::Upstream(UpstreamError::Open(health::seconds(wait)))),
            _ => Err(Failure::Upstream(UpstreamError::Unreachable)),
        }
    }

    /// Returns when the upstream takes nothing of a body for too long, or has not answered in time after its end.
    async fn late(&self, upload: &Upload) {
        let unmoved = async {
            let mut before = None;
            loop {
                tokio::time::sleep(self.progress).await;
                let now = upload.untaken();
                if now.is_some() && now == before {
                    return;
                }
                before = now;
            }
        };
        tokio::select! {
            () = unmoved => return,
            () = upload.ended() => {}
        }
        tokio::time::sleep(self.first_byte).await;
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        for sweeper in self.sweepers.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            sweeper.abort();
        }
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        for keeper in &self.keepers {
            keeper.abort();
        }
    }
}

/// What a pool is made of.
struct Seed {
    settings: settings::Upstream,
    route: String,
    origin: String,
    metrics: Arc<Metrics>,
    threads: usize,
    known: Arc<Known>,
}

impl Endpoint {
    /// The connections of this thread. Must be called inside a runtime.
    fn pool(&self) -> &Arc<Pool> {
        self.pools[workers::here()].get_or_init(|| {
            let Seed { settings, route, origin, metrics, threads, known } = &self.seed;
            let labels = [route.as_str(), origin.as_str()];
            let pool = Arc::new(Pool::new(settings, origin, &labels, metrics, *threads, known.clone()));
            let sweeper = tokio::spawn(sweep(pool.clone(), settings.idle)).abort_handle();
            self.sweepers.lock().unwrap_or_else(PoisonError::into_inner).push(sweeper);
            pool
        })
    }

    fn circuit(&self) -> std::sync::MutexGuard<'_, Circuit> {
        self.circuit.lock().unwrap_or_else(PoisonError::into_inner) // a count has no half-made state
    }

    fn enter(self: &Arc<Endpoint>) -> Place {
        self.held.fetch_add(1, Ordering::Relaxed);
        Place { endpoint: self.clone(), stream: None }
    }

    /// A gateway's word that nobody is behind it is a failure like silence, if another endpoint can be asked instead. Of a
    /// single one it is passed on and tells nothing: one caller's searches that end in 504 must not shut out the others.
    fn answered(&self, status: StatusCode) {
        match status {
            StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT if self.single => {}
            StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => self.failed(),
            _ => {
                self.circuit().succeeded();
                self.up.set(1);
            }
        }
    }

    fn failed(&self) {
        if self.circuit().failed(Instant::now()) {
            self.up.set(0);
        }
    }
}

impl Head {
    /// Whether doing it twice is doing it once (RFC 9110 §9.2.2). A conditional `DELETE` is not: what its search finds the
    /// second time may be another resource.
    fn is_idempotent(&self) -> bool {
        let reads = self.method == Method::GET || self.method == Method::HEAD;
        reads || (self.method == Method::DELETE && self.target.query().is_none())
    }

    /// As HTTP/1.1 or HTTP/2 writes it.
    fn request(&self, body: Outgoing, scheme: &Scheme, authority: &Authority, two: bool) -> http::Request<Outgoing> {
        let mut request = http::Request::new(body);
        *request.method_mut() = self.method.clone();
        *request.headers_mut() = self.headers.clone();
        let mut uri = http::uri::Parts::default();
        uri.path_and_query = Some(self.target.clone());
        if two {
            uri.scheme = Some(scheme.clone());
            uri.authority = Some(authority.clone());
            *request.version_mut() = http::Version::HTTP_2;
        } else {
            let host = HeaderValue::from_str(authority.as_str()).expect("an authority is visible ASCII");
            request.headers_mut().insert(header::HOST, host);
        }
        *request.uri_mut() = http::Uri::from_parts(uri).expect("a path, or scheme, authority and path");
        request
    }
}

/// Path and query of the upstream for what is below its base.
pub fn below(base: &str, target: &str) -> Result<PathAndQuery, Failure> {
    let slash = if target.is_empty() || target.starts_with(['/', '?']) { "" } else { "/" };
    let whole = format!("{base}{slash}{target}");
    let whole = if whole.starts_with('/') { whole } else { format!("/{whole}") };
    PathAndQuery::try_from(whole).map_err(|_| Failure::Upstream(UpstreamError::Unreachable))
}

/// Closes connections that were idle too long.
async fn sweep(pool: Arc<Pool>, idle: Duration) {
    loop {
        tokio::time::sleep(idle.max(l::SWEEP_INTERVAL_MIN)).await;
        pool.sweep();
    }
}

/// Asks an endpoint how it is. Its answer counts as that of an exchange does.
async fn ask(endpoint: Arc<Endpoint>, base: String, health: Health) {
    let Ok(target) = below(&base, health.path.as_deref().unwrap_or_default()) else { return };
    let headers = HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static("application/fhir+json"))]);
    let head = Head { method: Method::GET, target, headers };
    loop {
        tokio::time::sleep(health.interval).await;
        let asked = async {
            let (response, _stream) = match endpoint.pool().exchange(&head, Outgoing::empty(), false).await {
                Err(Broken::Unsent(body)) => endpoint.pool().exchange(&head, body, true).await.ok()?,
                answered => answered.ok()?,
            };
            let (parts, body) = response.into_parts();
            // Read to its end, so that the connection can be kept; what it says is nobody's concern.
            let _ = Limited::new(body, l::HEALTH_BYTES_MAX).collect().await;
            Some(parts.status)
        };
        match tokio::time::timeout(health.timeout, asked).await {
            Ok(Some(status)) if !status.is_server_error() => endpoint.answered(status),
            _ => endpoint.failed(),
        }
    }
}
