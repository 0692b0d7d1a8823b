//! `cryptonym certs dev`: a small certificate authority for one developer's machine; `demo` uses the same.
//!
//! It makes an authority, a server certificate for this machine and client certificates, all short-lived. The
//! authority's own key is never written: nobody, its maker included, can issue one more certificate from it later. A
//! key is readable by its owner only, and nothing is ever overwritten. None of this is for production.

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose,
};
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// How long development certificates last, in days: a quarter, so that a forgotten one dies of itself.
pub const VALID_DAYS: i64 = 90;

/// The names and addresses of this machine that a development server answers to.
pub const THIS_MACHINE: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// Why certificates were not made.
#[derive(Debug, thiserror::Error)]
pub enum CertsError {
    /// A file is in the way. Nothing was written.
    #[error("{} exists and is not overwritten; move it away, or name another folder with -o", .0.display())]
    Exists(PathBuf),
    /// The folder or a file cannot be written.
    #[error("cannot write {}: {}", .0.display(), .1.kind())]
    Write(PathBuf, io::Error),
    /// The certificate library refused: a fault of ours, or no randomness.
    #[error("cannot make a certificate: {0}")]
    Make(#[from] rcgen::Error),
}

/// A certificate with its private key, both as PEM.
pub struct Pair {
    /// The certificate alone, without its authority.
    pub certificate: String,
    /// PKCS#8.
    pub key: String,
}

/// An authority that lives in memory only.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: Certificate,
}

impl Authority {
    /// A fresh key and a self-signed certificate that may sign leaves but no further authority (RFC 5280 §4.2.1.9).
    pub fn new(name: &str) -> Result<Authority, CertsError> {
        let mut params = params(name, &[])?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?;
        Ok(Authority { issuer: Issuer::new(params, key), certificate })
    }

    /// What others are given to trust, as PEM.
    pub fn certificate(&self) -> String {
        self.certificate.pem()
    }

    /// A certificate for a TLS server with these host names or IP addresses.
    pub fn server(&self, hosts: &[&str]) -> Result<Pair, CertsError> {
        self.leaf("cryptonym development server", hosts, ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// A certificate by which a caller proves who it is: `name` as common name, `dns` as subject alternative name.
    pub fn client(&self, name: &str, dns: &str) -> Result<Pair, CertsError> {
        self.leaf(name, &[dns], ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn leaf(&self, name: &str, hosts: &[&str], purpose: ExtendedKeyUsagePurpose) -> Result<Pair, CertsError> {
        let mut params = params(name, hosts)?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![purpose];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Pair { certificate: certificate.pem(), key: key.serialize_pem() })
    }
}

fn params(name: &str, hosts: &[&str]) -> Result<CertificateParams, CertsError> {
    let mut params = CertificateParams::new(hosts.iter().map(|&host| host.to_owned()).collect::<Vec<_>>())?;
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, name);
    params.distinguished_name = subject;
    // From yesterday: clocks of two machines may differ.
    let (year, month, day) = date(-1);
    params.not_before = rcgen::date_time_ymd(year, month, day);
    let (year, month, day) = date(VALID_DAYS);
    params.not_after = rcgen::date_time_ymd(year, month, day);
    Ok(params)
}

/// The UTC date so many days from today, in the three numbers that rcgen takes.
fn date(days_from_today: i64) -> (i32, u8, u8) {
    let date =
        (Timestamp::now() + SignedDuration::from_hours(24 * days_from_today)).to_zoned_datetime(TimeZone::UTC).date();
    let number = |n: i8| u8::try_from(n).expect("months and days of a date are positive");
    (date.year().into(), number(date.month()), number(date.day()))
}

/// Writes files of one folder, all or none: every name is checked before the first is written.
pub fn write_new(folder: &Path, files: &[(&str, &str)]) -> Result<Vec<PathBuf>, CertsError> {
    let paths: Vec<PathBuf> = files.iter().map(|(name, _)| folder.join(name)).collect();
    if let Some(taken) = paths.iter().find(|path| path.symlink_metadata().is_ok()) {
        return Err(CertsError::Exists(taken.clone()));
    }
    fs::create_dir_all(folder).map_err(|error| CertsError::Write(folder.to_owned(), error))?;
    for (path, (name, text)) in paths.iter().zip(files) {
        write_one(path, name.contains("key"), text).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => CertsError::Exists(path.clone()),
            _ => CertsError::Write(path.clone(), error),
        })?;
    }
    Ok(paths)
}

/// `create_new` so that a file that appears between check and write is not followed or overwritten.
fn write_one(path: &Path, private: bool, text: &str) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, if private { 0o600 } else { 0o644 });
    options.open(path)?.write_all(text.as_bytes())
}

/// Makes the five files of `cryptonym certs dev` in `folder` and says on `output` what they are.
pub fn make_dev(folder: &Path, output: &mut dyn Write) -> Result<(), CertsError> {
    let authority = Authority::new("cryptonym development authority")?;
    let server = authority.server(&THIS_MACHINE)?;
    let client = authority.client("dev-client", "dev-client.localhost")?;
    let paths = write_new(
        folder,
        &[
            ("ca.pem", &authority.certificate()),
            ("server.pem", &server.certificate),
            ("server-key.pem", &server.key),
            ("client.pem", &client.certificate),
            ("client-key.pem", &client.key),
        ],
    )?;
    let told = |output: &mut dyn Write| -> io::Result<()> {
        let uses = [
            "what clients trust (--cacert), and what the listener's client_ca names",
            "for the listener: localhost, 127.0.0.1, ::1",
            "its private key, mode 0600",
            "for a caller: CN dev-client, DNS dev-client.localhost",
            "its private key, mode 0600",
        ];
        for (path, what) in paths.iter().zip(uses) {
            writeln!(output, "{:<32} {what}", path.display().to_string())?;
        }
        writeln!(output, "Valid for {VALID_DAYS} days, for development only. The authority's key was not kept.")
    };
    // The files are what was asked for; a closed terminal does not undo them.
    let _ = told(output);
    Ok(())
}

/// `cryptonym certs dev [-o FOLDER]`. Exit 0, or 1 where a file is in the way or cannot be written.
pub fn dev(folder: &Path) -> ExitCode {
    match make_dev(folder, &mut io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Standard error may be closed; the exit code still speaks.
            let _ = writeln!(io::stderr().lock(), "cryptonym certs dev: {error}");
            ExitCode::from(1)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_files_once_and_keys_are_private() {
        let folder = std::env::temp_dir().join(format!("cryptonym-certs-{}", std::process::id()));
        let mut told = Vec::new();
        make_dev(&folder, &mut told).unwrap();
        assert_eq!(String::from_utf8(told).unwrap().lines().count(), 6);

        #[cfg(unix)]
        for name in ["server-key.pem", "client-key.pem"] {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(fs::metadata(folder.join(name)).unwrap().permissions().mode() & 0o777, 0o600);
        }
        let before = fs::read(folder.join("server-key.pem")).unwrap();
        fs::remove_file(folder.join("ca.pem")).unwrap();
        assert!(matches!(make_dev(&folder, &mut Vec::new()), Err(CertsError::Exists(_))));
        assert_eq!(fs::read(folder.join("server-key.pem")).unwrap(), before);
        assert!(!folder.join("ca.pem").exists(), "nothing is written where one file is in the way");
        fs::remove_dir_all(&folder).unwrap();
    }
}
