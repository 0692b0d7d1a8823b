//! TLS on both sides, and who the peer is.
//!
//! TLS 1.3 and 1.2 by aws-lc-rs, no early data (a replayed `POST` would create twice), roots only from files that the
//! configuration names. A client certificate is either verified by rustls or absent: nothing here verifies anything
//! itself, and nothing reads an identity from a certificate that was not verified.

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
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
    /// No randomness for the keys of tickets.
    #[error("cannot be used: this machine gives no random bytes")]
    Tickets,
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

/// A chain and its key, of which one is known to be the other's.
pub fn pair(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<CertifiedKey, TlsError> {
    CertifiedKey::from_der(chain, key, &provider()).map_err(|_| TlsError::Pair)
}

/// A listener's certificates by the name that the client asks for (SNI, RFC 6066 §3); the first for who asks for none, or
/// for a name that none has: a client that minds will not trust it.
#[derive(Debug)]
struct Certificates {
    first: Arc<CertifiedKey>,
    /// DNS names in lower case, `*.` before those of a whole level.
    by_name: HashMap<String, Arc<CertifiedKey>>,
}

impl Certificates {
    fn new(pairs: Vec<CertifiedKey>) -> Result<Certificates, TlsError> {
        let pairs: Vec<_> = pairs.into_iter().map(Arc::new).collect();
        let mut by_name = HashMap::new();
        for pair in &pairs {
            for name in identity(pair.end_entity_cert().map_err(|_| TlsError::Certificate)?).dns {
                by_name.entry(name.to_ascii_lowercase()).or_insert_with(|| pair.clone()); // the first listed wins
            }
        }
        let first = pairs.into_iter().next().ok_or(TlsError::Certificate)?;
        Ok(Certificates { first, by_name })
    }

    fn named(&self, name: &str) -> Arc<CertifiedKey> {
        let name = name.to_ascii_lowercase();
        let level = || name.split_once('.').and_then(|(_, parent)| self.by_name.get(&format!("*.{parent}")));
        self.by_name.get(&name).or_else(level).unwrap_or(&self.first).clone()
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(hello.server_name().map_or_else(|| self.first.clone(), |name| self.named(name)))
    }
}

/// A listener's TLS: HTTP/2 before HTTP/1.1, our order of suites, no early data, tickets without state here.
pub fn server(
    pairs: Vec<CertifiedKey>,
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
    let mut config = builder.with_cert_resolver(Arc::new(Certificates::new(pairs)?));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.ignore_client_order = true;
    config.max_early_data_size = 0;
    config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().map_err(|_| TlsError::Tickets)?;
    Ok(Arc::new(config))
}

/// A digest of who vouches for clients, and whether they must show it.
pub fn trust(clients: Option<(&RootCertStore, ClientAuth)>) -> [u8; 32] {
    let mut digest = Sha256::new();
    if let Some((roots, auth)) = clients {
        digest.update([if auth == ClientAuth::Required { 2 } else { 1 }]);
        for root in &roots.roots {
            for part in [root.subject.as_ref(), root.subject_public_key_info.as_ref()] {
                digest.update((part.len() as u64).to_be_bytes());
                digest.update(part);
            }
        }
    }
    digest.finalize().into()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_chosen_by_name_and_the_first_for_everybody_else() {
        let made = |names: &[&str]| {
            let key = rcgen::KeyPair::generate().unwrap();
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            let certificate = rcgen::CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
            pair(vec![certificate.der().clone()], private_key(key.serialize_pem().as_bytes()).unwrap()).unwrap()
        };
        let certificates =
            Certificates::new(vec![made(&["a.example"]), made(&["*.b.example", "A.example"]), made(&["c.b.example"])])
                .unwrap();
        let leaves: Vec<_> = ["a.example", "x.b.example", "c.b.example"].map(|n| certificates.named(n)).into();
        for (name, expected) in
            [("a.example", 0), ("X.B.example", 1), ("c.b.example", 2), ("x.y.b.example", 0), ("b.example", 0), ("", 0)]
        {
            assert!(Arc::ptr_eq(&certificates.named(name), &leaves[expected]), "{name}");
        }
        assert!(!Arc::ptr_eq(&leaves[0], &leaves[1]) && !Arc::ptr_eq(&leaves[1], &leaves[2]));
    }
}
