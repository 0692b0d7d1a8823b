//! TLS on both sides, and who the peer is.
//!
//! TLS 1.3 and 1.2 by aws-lc-rs, no early data (a replayed `POST` would create twice), roots only from files that the
//! configuration names. A client certificate is either verified by rustls or absent: nothing here verifies anything
//! itself, and nothing reads an identity from a certificate that was not verified.

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use std::sync::Arc;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// What is wrong with a certificate, key or list of authorities. The file's name is the caller's to add.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    /// No certificate, or bytes that are none.
    #[error("holds no PEM certificate")]
    Certificate,
    /// No private key, or bytes that are none.
    #[error("holds no PEM private key")]
    Key,
    /// The key is not the certificate's.
    #[error("is not the private key of this certificate")]
    Pair,
    /// An authority that rustls cannot use.
    #[error("holds a certificate that cannot serve as an authority")]
    Authority,
}

/// Whether a client certificate must be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAuth {
    /// A caller without one is nobody and gets pseudonyms.
    Optional,
    /// A caller without one gets no connection.
    Required,
}

/// What a verified client certificate says about its holder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// DNS subject alternative names.
    pub dns: Vec<String>,
    /// URI subject alternative names (SPIFFE ids).
    pub uris: Vec<String>,
    /// The subject's common name, if there is exactly one.
    pub common_name: Option<String>,
}

/// Certificates of a PEM file, leaf first.
pub fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Vec<_> =
        CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|_| TlsError::Certificate)?;
    if found.is_empty() { Err(TlsError::Certificate) } else { Ok(found) }
}

/// The private key of a PEM file (PKCS#8, SEC1 or PKCS#1).
pub fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|_| TlsError::Key)
}

/// The authorities of a PEM file.
pub fn authorities(pem: &[u8]) -> Result<Arc<RootCertStore>, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem)? {
        roots.add(certificate).map_err(|_| TlsError::Authority)?;
    }
    Ok(Arc::new(roots))
}

/// When a certificate ends, in seconds since 1970.
pub fn expires(certificate: &CertificateDer<'_>) -> Result<i64, TlsError> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| TlsError::Certificate)?;
    Ok(parsed.validity().not_after.timestamp())
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// A listener's TLS: HTTP/2 before HTTP/1.1, our order of suites, no early data.
pub fn server(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    clients: Option<(Arc<RootCertStore>, ClientAuth)>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let builder = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .expect("aws-lc-rs speaks TLS 1.3 and 1.2");
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some((roots, auth)) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider());
            let verifier = match auth {
                ClientAuth::Optional => verifier.allow_unauthenticated(),
                ClientAuth::Required => verifier,
            };
            builder.with_client_cert_verifier(verifier.build().map_err(|_| TlsError::Authority)?)
        }
    };
    let mut config = builder.with_single_cert(chain, key).map_err(|_| TlsError::Pair)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.ignore_client_order = true;
    config.max_early_data_size = 0;
    Ok(Arc::new(config))
}

/// The upstream's TLS. ALPN is left to the connector, which knows what it can speak.
pub fn client(
    roots: Arc<RootCertStore>,
    own: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
) -> Result<Arc<ClientConfig>, TlsError> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .expect("aws-lc-rs speaks TLS 1.3 and 1.2")
        .with_root_certificates(roots);
    let config = match own {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).map_err(|_| TlsError::Pair)?,
    };
    Ok(Arc::new(config))
}

/// Reads who the holder of a verified leaf certificate is. A leaf that cannot be read names nobody.
pub fn identity(leaf: &CertificateDer<'_>) -> Identity {
    let Ok((_, certificate)) = X509Certificate::from_der(leaf) else { return Identity::default() };
    let mut identity = Identity::default();
    if let Ok(Some(names)) = certificate.subject_alternative_name() {
        for name in &names.value.general_names {
            match name {
                GeneralName::DNSName(dns) => identity.dns.push((*dns).to_owned()),
                GeneralName::URI(uri) => identity.uris.push((*uri).to_owned()),
                _ => {}
            }
        }
    }
    let mut names = certificate.subject().iter_common_name().map(|name| name.as_str().ok());
    if let (Some(Some(only)), None) = (names.next(), names.next()) {
        identity.common_name = Some(only.to_owned());
    }
    identity
}
