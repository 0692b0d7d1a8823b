//! The untrusted side of a route, from as written to as meant: where it is reached, by which times and how its health is
//! judged.
//!
//! Times that contradict one another are mistakes: a bound that another one always cuts short would never be what its
//! writer meant.

use super::Reader;
use super::file::{HealthFile, TimeoutsFile, UpstreamFile, UpstreamTlsFile};
use super::values::{Base, path_prefix};
use crate::proxy::limits as l;
use crate::proxy::settings::Upstream;
use crate::proxy::tls;
use crate::proxy::upstream::health::Health;
use serde_saphyr::Spanned;
use std::sync::Arc;
use std::time::Duration;

/// One service at several places.
struct Places {
    secure: bool,
    path: String,
    origins: Vec<String>,
    line: u64,
}

impl Reader<'_> {
    pub(super) fn upstream(&mut self, written: Spanned<UpstreamFile>) -> Option<Upstream> {
        self.line = written.referenced.line();
        let line = self.line;
        let UpstreamFile { url, tls, timeouts, urls, health } = written.value;
        let places = self.places(url, urls);
        self.line = line;
        let tls = tls.map(|tls| self.upstream_tls(tls));
        let TimeoutsFile { connect, first_byte, progress, idle, whole } = timeouts.unwrap_or_default();
        let whole = self.duration("timeouts.whole", whole, l::WHOLE_TIMEOUT);
        let within = whole.unwrap_or(l::WHOLE_TIMEOUT); // what is not written fits into what is
        let connect = self.duration("timeouts.connect", connect, l::CONNECT_TIMEOUT.min(within));
        let first_byte = self.duration("timeouts.first_byte", first_byte, l::FIRST_BYTE_TIMEOUT.min(within));
        let progress = self.duration("timeouts.progress", progress, l::PROGRESS_TIMEOUT.min(within));
        let idle = self.duration("timeouts.idle", idle, l::UPSTREAM_IDLE_TIMEOUT);
        let health = self.health(health);
        let places = places?;
        let tls = match (places.secure, tls) {
            (true, Some(tls)) => Some(tls?),
            (true, None) => {
                self.line = places.line;
                self.missing(
                    "upstream.tls.ca",
                    "name the authority of the upstream's certificate; no other is trusted",
                );
                return None;
            }
            (false, Some(_)) => {
                self.wrong(places.line, "an upstream with `tls` is written as http://", "write https://");
                return None;
            }
            (false, None) => None,
        };
        let (connect, first_byte, progress, idle, whole) = (connect?, first_byte?, progress?, idle?, whole?);
        for (key, time) in [("connect", connect), ("first_byte", first_byte), ("progress", progress)] {
            if time > whole {
                let what = format!("`timeouts.{key}` is longer than `timeouts.whole`, so it would never be reached");
                self.wrong(line, what, "shorten it, or allow the whole exchange more");
            }
        }
        if idle > l::UPSTREAM_IDLE_TIMEOUT_MAX {
            let what = "`timeouts.idle` is longer than any server keeps an idle connection";
            self.wrong(line, what, "write less than the upstream's own time; 3s fits all known ones");
        }
        let Places { path, origins, .. } = places;
        Some(Upstream { origins, path, tls, connect, first_byte, progress, idle, whole, health: health? })
    }

    /// `url`, or `urls` of one service: they differ in host and port only.
    fn places(&mut self, url: super::Text, urls: Vec<Spanned<String>>) -> Option<Places> {
        let advice = "write https://HOST[:PORT]/PATH, without query";
        let written = match (url, urls.is_empty()) {
            (Some(url), true) => vec![url],
            (None, false) => urls,
            (None, true) => {
                self.missing("url", "write https://HOST[:PORT]/PATH");
                return None;
            }
            (Some(url), false) => {
                let what = "both `url` and `urls` are given";
                self.wrong(url.referenced.line(), what, "write `url` for one endpoint, `urls` for several");
                return None;
            }
        };
        if written.len() > l::ENDPOINTS_MAX {
            let what = format!("`urls` names more than {} endpoints", l::ENDPOINTS_MAX);
            self.wrong(written[0].referenced.line(), what, "put a balancer between");
            return None;
        }
        let (count, mut places) = (written.len(), None::<Places>);
        for url in written {
            let line = url.referenced.line();
            let Some(value) = self.text(Some(url)) else { continue };
            let Some(base) = self.read("url", value, advice, Base::parse) else { continue };
            if !base.secure && !base.is_loopback() {
                let what = "the upstream is reached without TLS";
                self.wrong(line, what, "write https://; plain http is for 127.0.0.1 only");
                continue;
            }
            let places = places.get_or_insert_with(|| Places {
                secure: base.secure,
                path: base.path.clone(),
                origins: vec![],
                line,
            });
            if places.secure != base.secure || places.path != base.path {
                let what = "the endpoints of one upstream differ in more than host and port";
                self.wrong(line, what, "make a route for each service");
            } else if places.origins.contains(&base.origin) {
                self.wrong(line, "an endpoint is named twice", "name it once");
            } else {
                places.origins.push(base.origin);
            }
        }
        places.filter(|places| places.origins.len() == count)
    }

    fn health(&mut self, written: Option<Spanned<HealthFile>>) -> Option<Health> {
        let line = written.as_ref().map_or(self.line, |written| written.referenced.line());
        let HealthFile { path, interval, timeout, failures, open } = written
            .map_or(HealthFile { path: None, interval: None, timeout: None, failures: None, open: None }, |w| w.value);
        if path.is_none() && (interval.is_some() || timeout.is_some()) {
            self.wrong(line, "`health` has times and no `path` to ask for", "write path: metadata, or leave them out");
        }
        let advice = "write a path below the upstream's base, such as metadata";
        let path = match self.text(path) {
            Some(value) => Some(self.read("health.path", value, advice, |text| {
                path_prefix(&format!("/{}", text.trim_start_matches('/')))
            })?),
            None => None,
        };
        let interval = self.duration("health.interval", interval, l::HEALTH_INTERVAL)?;
        let timeout = self.duration("health.timeout", timeout, l::HEALTH_TIMEOUT.min(interval))?;
        let open = self.duration("health.open", open, l::HEALTH_OPEN)?;
        if timeout > interval {
            self.wrong(
                line,
                "`health.timeout` is longer than `health.interval`",
                "give an answer less time than passes between two questions",
            );
        }
        for (key, time) in [("interval", interval), ("open", open)] {
            if time > l::HEALTH_TIME_MAX {
                let what = format!("`health.{key}` is longer than {} s", l::HEALTH_TIME_MAX.as_secs());
                self.wrong(line, what, "an endpoint that is well again would stay unused so long");
            }
        }
        if interval < Duration::from_millis(100) {
            self.wrong(line, "`health.interval` is shorter than 100ms", "asking is work for the endpoint too");
        }
        let failures = match failures {
            Some(count) if (1..=l::HEALTH_FAILURES_MAX).contains(&count.value) => count.value,
            Some(count) => {
                let advice = format!("a number from 1 to {}", l::HEALTH_FAILURES_MAX);
                self.wrong(count.referenced.line(), "`health.failures` is out of range", advice);
                return None;
            }
            None => l::HEALTH_FAILURES,
        };
        Some(Health { path, interval, timeout, failures, open })
    }

    fn upstream_tls(&mut self, written: UpstreamTlsFile) -> Option<Arc<rustls::ClientConfig>> {
        let UpstreamTlsFile { ca, cert, key } = written;
        let line = self.line;
        let has_own = cert.is_some() || key.is_some();
        let roots = self.required("ca", ca, "name the authority of the upstream's certificate");
        let roots = roots.and_then(|value| self.file("ca", value, tls::authorities));
        let own = if has_own {
            let chain = self.required("cert", cert, "a key needs its certificate");
            let chain = chain.and_then(|value| self.file("cert", value, tls::certificates));
            let key = self.required("key", key, "a certificate needs its key");
            let key = key.and_then(|value| self.file("key", value, tls::private_key));
            Some((chain?, key?))
        } else {
            None
        };
        let made = tls::client(roots?, own);
        made.map_err(|error| {
            self.wrong(line, format!("`upstream.tls`: the file {error}"), "give matching `cert` and `key`")
        })
        .ok()
    }
}
