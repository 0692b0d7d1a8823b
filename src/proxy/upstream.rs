//! The way to the untrusted side: one connection pool per route, and times for every wait.
//!
//! Nothing is sent twice. The pool tries again by itself only where a kept connection turned out dead before a byte of the
//! request was written; a FHIR create is not idempotent, so what broke later is the caller's to decide.

use super::body::{Outgoing, Upload};
use super::limits::{UPSTREAM_IDLE_MAX, UPSTREAM_IDLE_TIMEOUT};
use super::respond::{Failure, UpstreamError};
use super::settings;
use http::{HeaderMap, Method, Request, Response, Uri, Version};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tower_service::Service;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A pool of connections to one upstream.
pub struct Upstream {
    client: Client<Impatient<HttpsConnector<HttpConnector>>, Outgoing>,
    base: String,
    first_byte: Duration,
}

impl Upstream {
    /// Opens no connection yet.
    pub fn new(settings: &settings::Upstream) -> Upstream {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        let connector = match &settings.tls {
            Some(tls) => HttpsConnectorBuilder::new()
                .with_tls_config(tls.as_ref().clone())
                .https_only()
                .enable_all_versions()
                .wrap_connector(tcp),
            None => {
                // Plain HTTP to loopback. The connector wants a TLS configuration; one without roots trusts nobody.
                let nobody = super::tls::client(rustls::RootCertStore::empty().into(), None)
                    .expect("a client without a certificate of its own has no key that could not fit");
                let builder = HttpsConnectorBuilder::new().with_tls_config(nobody.as_ref().clone());
                builder.https_or_http().enable_http1().wrap_connector(tcp)
            }
        };
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .timer(TokioTimer::new())
            .pool_idle_timeout(UPSTREAM_IDLE_TIMEOUT)
            .pool_max_idle_per_host(UPSTREAM_IDLE_MAX)
            .build(Impatient { inner: connector, patience: settings.connect });
        Upstream { client, base: format!("{}{}", settings.origin, settings.path), first_byte: settings.first_byte }
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
    ) -> Result<Response<Incoming>, Failure> {
        let slash = if target.is_empty() || target.starts_with(['/', '?']) { "" } else { "/" };
        let uri = Uri::try_from(format!("{}{slash}{target}", self.base))
            .map_err(|_| Failure::Upstream(UpstreamError::Unreachable))?;
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        *request.version_mut() = Version::HTTP_11;
        *request.headers_mut() = headers;
        let answered = tokio::select! {
            answered = self.client.request(request) => answered.map_err(|_| UpstreamError::Unreachable),
            () = async { upload.ended().await; tokio::time::sleep(self.first_byte).await } => Err(UpstreamError::Slow),
        };
        answered.map_err(|error| upload.failure().unwrap_or(Failure::Upstream(error)))
    }
}

/// A connector whose whole work, TLS included, must be done in time.
#[derive(Clone)]
struct Impatient<C> {
    inner: C,
    patience: Duration,
}

impl<C> Service<Uri> for Impatient<C>
where
    C: Service<Uri, Error = BoxError>,
    C::Future: Send + 'static,
{
    type Response = C::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<C::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, target: Uri) -> Self::Future {
        let connected = tokio::time::timeout(self.patience, self.inner.call(target));
        Box::pin(async move { connected.await.map_err(BoxError::from)? })
    }
}
