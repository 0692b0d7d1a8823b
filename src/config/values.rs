//! Texts of a configuration as values: variables, paths, base URLs, times, addresses.
//!
//! Each function takes a text whole or not at all; what to say about one that was not taken is the reader's to know.

use crate::proxy::limits::TIMEOUT_MAX;
use crate::proxy::settings::Address;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

/// `127.0.0.1:8443`, or `unix:PATH` below a folder.
pub(super) fn address(text: &str, folder: &Path) -> Option<Address> {
    match text.strip_prefix("unix:") {
        Some("") => None,
        Some(path) => Some(Address::Unix(folder.join(path))),
        None => text.parse().ok().map(Address::Tcp),
    }
}

/// Whether nobody beyond this machine can reach it.
pub(super) fn is_local(address: &Address) -> bool {
    match address {
        Address::Tcp(address) => address.ip().is_loopback(),
        Address::Unix(_) => true,
    }
}

/// Replaces `${VAR}` and `${VAR:-default}`. The text of a mistake names the variable, never its value.
pub(super) fn expand(text: &str, variable: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        expanded.push_str(&rest[..start]);
        let Some(length) = rest[start..].find('}') else { return Err("`${` without its `}`".into()) };
        let inside = &rest[start + 2..start + length];
        let (name, default) = match inside.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (inside, None),
        };
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            return Err("`${...}` holds no name of a variable".into());
        }
        let value = variable(name).filter(|value| !value.is_empty()).or(default.map(str::to_owned));
        expanded.push_str(&value.ok_or_else(|| format!("the variable {name} is not set"))?);
        rest = &rest[start + length + 1..];
    }
    expanded.push_str(rest);
    Ok(expanded)
}

/// `/fhir`, or nothing for `/`: unreserved characters only, so that it has one spelling.
pub(super) fn path_prefix(text: &str) -> Option<String> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'-' | b'.' | b'_' | b'~');
    let trimmed = text.strip_suffix('/').unwrap_or(text);
    let segments_whole = trimmed.split('/').skip(1).all(|segment| !matches!(segment, "" | "." | ".."));
    let fits = (trimmed.is_empty() || trimmed.starts_with('/')) && trimmed.bytes().all(plain) && segments_whole;
    fits.then(|| trimmed.to_owned())
}

/// An absolute base URL, in parts.
pub(super) struct Base {
    pub(super) secure: bool,
    pub(super) host: String,
    pub(super) origin: String,
    pub(super) path: String,
}

impl Base {
    pub(super) fn parse(text: &str) -> Option<Base> {
        let uri: http::Uri = text.parse().ok()?;
        let secure = match uri.scheme_str()? {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let authority = uri.authority()?;
        if authority.as_str().contains('@') || uri.query().is_some() || text.contains('#') {
            return None;
        }
        let origin = format!("{}://{}", uri.scheme_str()?, authority.as_str().to_ascii_lowercase());
        Some(Base { secure, host: authority.host().to_ascii_lowercase(), origin, path: path_prefix(uri.path())? })
    }

    pub(super) fn whole(&self) -> String {
        format!("{}{}", self.origin, self.path)
    }

    pub(super) fn is_loopback(&self) -> bool {
        let bare = self.host.trim_start_matches('[').trim_end_matches(']');
        bare == "localhost" || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }
}

/// `500ms`, `5s`, `2m` or `1h`; more than nothing, at most a day.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let number: u32 = text[..digits].parse().ok()?;
    let unit = match &text[digits..] {
        "ms" => Duration::from_millis(1),
        "s" => Duration::from_secs(1),
        "m" => Duration::from_secs(60),
        "h" => Duration::from_secs(3600),
        _ => return None,
    };
    unit.checked_mul(number).filter(|time| !time.is_zero() && *time <= TIMEOUT_MAX)
}
