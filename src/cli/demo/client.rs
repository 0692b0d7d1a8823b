//! A small FHIR client over TLS, as a hospital system would use one: for the demo and for tests.
//!
//! It trusts one authority, shows a certificate if it has one, and gives back what came, errors included.

use crate::cli::certs::Pair;
use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client as Hyper;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use serde_json::Value;
use std::sync::Arc;

/// Why there was no answer, in words that name no value.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The certificates cannot be used for TLS.
    #[error("the certificates are not usable: {0}")]
    Tls(String),
    /// The URL or a header is not one.
    #[error("not a request: {0}")]
    Request(#[from] http::Error),
    /// No connection, or it broke before the answer was whole.
    #[error("no answer: {0}")]
    Connection(String),
}

/// One caller.
pub struct Client {
    hyper: Hyper<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

/// What came back.
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// Headers.
    pub headers: HeaderMap,
    /// Body; bytes that are not UTF-8 are replaced.
    pub body: String,
}

impl Reply {
    /// The body as JSON; null where it is none.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }

    /// A header as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

impl Client {
    /// `authority`: the PEM to trust. `identity`: the certificate to show.
    pub fn new(authority: &str, identity: Option<&Pair>) -> Result<Client, ClientError> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(authority)? {
            roots.add(certificate).map_err(tls_error)?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(tls_error)?
            .with_root_certificates(roots);
        let config = match identity {
            Some(pair) => {
                config.with_client_auth_cert(certificates(&pair.certificate)?, key(pair)?).map_err(tls_error)?
            }
            None => config.with_no_client_auth(),
        };
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        // Without it head and body meet Nagle's algorithm and a delayed acknowledgement: 40 ms for each request with a body.
        tcp.set_nodelay(true);
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(config).https_only().enable_all_versions().wrap_connector(tcp);
        Ok(Client { hyper: Hyper::builder(TokioExecutor::new()).build(connector) })
    }

    /// Sends a request and reads the whole answer. A body is FHIR JSON unless a header says otherwise.
    pub async fn send(
        &self,
        method: &str,
        url: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Result<Reply, ClientError> {
        let mut request = Request::builder().method(method).uri(url).header("accept", "application/fhir+json");
        if !body.is_empty() && !headers.iter().any(|(name, _)| *name == "content-type") {
            request = request.header("content-type", "application/fhir+json");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::copy_from_slice(body.as_bytes())))?;
        let response = self.hyper.request(request).await.map_err(|error| {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
            ClientError::Connection(format!("{error}{cause}"))
        })?;
        let (head, body) = response.into_parts();
        let body = body.collect().await.map_err(|error| ClientError::Connection(error.to_string()))?.to_bytes();
        Ok(Reply {
            status: head.status.as_u16(),
            headers: head.headers,
            body: String::from_utf8_lossy(&body).into_owned(),
        })
    }

    /// `GET`.
    pub async fn get(&self, url: &str) -> Result<Reply, ClientError> {
        self.send("GET", url, &[], "").await
    }
}

/// A TLS server that shows this certificate, asks for none, and offers HTTP/2 and HTTP/1.1.
pub fn server_tls(pair: &Pair) -> Result<Arc<ServerConfig>, ClientError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(tls_error)?
        .with_no_client_auth()
        .with_single_cert(certificates(&pair.certificate)?, key(pair)?)
        .map_err(tls_error)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, ClientError> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().map_err(tls_error)
}

fn key(pair: &Pair) -> Result<PrivateKeyDer<'static>, ClientError> {
    PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).map_err(tls_error)
}

fn tls_error(error: impl std::fmt::Display) -> ClientError {
    ClientError::Tls(error.to_string())
}
