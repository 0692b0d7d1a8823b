//! What is counted. Every label comes from configuration or from a list in this program, never from traffic.

use super::settings::Settings;
use crate::rewrite::Report;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

/// Which way a body went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the caller to the upstream.
    Request,
    /// From the upstream to the caller.
    Answer,
}

impl Direction {
    /// As a label.
    pub fn as_str(self) -> &'static str {
        match self {
            Direction::Request => "request",
            Direction::Answer => "answer",
        }
    }
}

/// All metrics of one running proxy (contract §5).
pub struct Metrics {
    registry: Registry,
    /// Exchanges ended, by route, method and class of status.
    pub requests: IntCounterVec,
    /// From head to last byte, by route.
    pub request_duration: HistogramVec,
    /// Time spent in the rewriter for one body, by route and direction.
    pub rewrite_duration: HistogramVec,
    /// From the end of the request to the head of the answer, by route.
    pub upstream_duration: HistogramVec,
    /// Connections to an endpoint open now, by route and endpoint.
    pub upstream_connections: IntGaugeVec,
    /// Connections to an endpoint made or failed, by route, endpoint and outcome.
    pub upstream_connects: IntCounterVec,
    /// Requests sent again, by route.
    pub upstream_retries: IntCounterVec,
    /// 1 while an endpoint's circuit is closed, by route and endpoint.
    pub upstream_up: IntGaugeVec,
    /// Bytes let go after rewriting, by route and direction.
    pub body_bytes: IntCounterVec,
    /// Leaves rewritten, by action, both directions. What is kept is not counted: the rewriter never looks at it.
    pub fields: IntCounterVec,
    /// Elements removed.
    pub removed_fields: IntCounter,
    /// Resources rewritten, both directions.
    pub resources: IntCounter,
    /// Resources whose dates could not be unshifted for want of a valid seal.
    pub unsealed: IntCounter,
    /// Tokens that stayed tokens for a caller.
    pub stayed: IntCounter,
    /// Refusals and other failures, by code.
    pub refusals: IntCounterVec,
    /// Revealed values; `outcome` is `revealed` or `withheld` (the record could not be written).
    pub reveals: IntCounterVec,
    /// Records that could not be made durable.
    pub audit_write_errors: IntCounter,
    /// Time to make one batch of records durable.
    pub audit_duration: Histogram,
    /// Lines of the access log that found no room.
    pub access_log_dropped: IntCounter,
    /// Connections open now.
    pub open_connections: IntGauge,
    /// Exchanges in flight now.
    pub inflight_requests: IntGauge,
    /// TLS handshakes that failed or took too long.
    pub handshake_errors: IntCounter,
    /// Connections closed before a request, by reason.
    pub connections_refused: IntCounterVec,
    /// End of each listener's certificate, in seconds since 1970.
    certificate_expiry: IntGaugeVec,
    /// 1 if the last settings that were offered were taken, else 0: the former ones go on.
    last_reload_successful: IntGauge,
    /// When settings were last taken, in seconds since 1970.
    last_reload_success: IntGauge,
}

/// Seconds: from a cached read on the same host to a bulk file.
const DURATIONS: [f64; 14] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0, 120.0];

impl Default for Metrics {
    /// Registers everything.
    fn default() -> Metrics {
        let registry = Registry::new();
        Metrics {
            requests: counters(&registry, "requests_total", "Exchanges ended", &["route", "method", "code_class"]),
            request_duration: durations(&registry, "request_duration_seconds", "From head to last byte", &["route"]),
            rewrite_duration: durations(
                &registry,
                "rewrite_duration_seconds",
                "In the rewriter, for one body",
                &["route", "direction"],
            ),
            upstream_duration: durations(
                &registry,
                "upstream_duration_seconds",
                "From sending to the head of the answer",
                &["route"],
            ),
            upstream_connections: gauges(
                &registry,
                "upstream_connections",
                "Connections to an endpoint open now",
                &["route", "endpoint"],
            ),
            upstream_connects: counters(
                &registry,
                "upstream_connects_total",
                "Connections to an endpoint made or failed",
                &["route", "endpoint", "outcome"],
            ),
            upstream_retries: counters(&registry, "upstream_retries_total", "Requests sent again", &["route"]),
            upstream_up: gauges(
                &registry,
                "upstream_up",
                "Whether an endpoint's circuit is closed",
                &["route", "endpoint"],
            ),
            body_bytes: counters(
                &registry,
                "body_bytes_total",
                "Bytes let go after rewriting",
                &["route", "direction"],
            ),
            fields: counters(&registry, "fields_total", "Leaves by action", &["action"]),
            removed_fields: counter(&registry, "removed_fields_total", "Elements removed"),
            resources: counter(&registry, "resources_total", "Resources rewritten"),
            unsealed: counter(
                &registry,
                "unsealed_resources_total",
                "Resources whose dates stayed shifted: no valid seal",
            ),
            stayed: counter(&registry, "tokens_stayed_total", "Tokens not revealed to a caller"),
            refusals: counters(&registry, "refusals_total", "Refusals and other failures", &["code"]),
            reveals: counters(
                &registry,
                "reveals_total",
                "Values shown, or withheld for want of a record",
                &["outcome"],
            ),
            audit_write_errors: counter(
                &registry,
                "audit_write_errors_total",
                "Records that could not be made durable",
            ),
            audit_duration: histogram(&registry, "audit_duration_seconds", "To make one batch of records durable"),
            access_log_dropped: counter(&registry, "access_log_dropped_total", "Lines of the access log without room"),
            open_connections: gauge(&registry, "open_connections", "Connections open now"),
            inflight_requests: gauge(&registry, "inflight_requests", "Exchanges in flight now"),
            handshake_errors: counter(&registry, "handshake_errors_total", "TLS handshakes failed or too slow"),
            connections_refused: counters(
                &registry,
                "connections_refused_total",
                "Connections closed before a request",
                &["reason"],
            ),
            certificate_expiry: gauges(
                &registry,
                "tls_certificate_expiry_timestamp_seconds",
                "End of the certificate",
                &["listener"],
            ),
            last_reload_successful: gauge(
                &registry,
                "config_last_reload_successful",
                "Whether the last settings offered were taken",
            ),
            last_reload_success: gauge(
                &registry,
                "config_last_reload_success_timestamp_seconds",
                "When settings were last taken",
            ),
            registry,
        }
    }
}

impl Metrics {
    /// Label values that settings know start at nought, so that a first event is a rise; gauges about them are set.
    pub fn know(&self, settings: &Settings) {
        for route in &settings.routes {
            self.upstream_retries.with_label_values(&[route.name.as_str()]);
            for direction in [Direction::Request, Direction::Answer] {
                self.body_bytes.with_label_values(&[route.name.as_str(), direction.as_str()]);
            }
        }
        for outcome in ["revealed", "withheld"] {
            self.reveals.with_label_values(&[outcome]);
        }
        for reason in ["per-address", "proxy-protocol"] {
            self.connections_refused.with_label_values(&[reason]);
        }
        for (index, listener) in settings.listeners.iter().enumerate() {
            if let Some(tls) = &listener.tls {
                self.certificate_expiry.with_label_values(&[index.to_string().as_str()]).set(tls.expires);
            }
        }
    }

    /// Settings were offered, and taken or not.
    pub fn reloaded(&self, taken: bool) {
        self.last_reload_successful.set(i64::from(taken));
        if taken {
            self.last_reload_success.set(jiff::Timestamp::now().as_second());
        }
    }

    /// Adds what the rewriter did. Values revealed are counted apart, when they are.
    pub fn count(&self, report: &Report) {
        for (action, count) in report.by_action() {
            self.fields.with_label_values(&[action]).inc_by(count);
        }
        self.removed_fields.inc_by(report.removed);
        self.resources.inc_by(report.resources);
        self.unsealed.inc_by(report.unsealed);
        self.stayed.inc_by(report.stayed);
    }

    /// The page of `/metrics`, in the text format.
    pub fn page(&self) -> String {
        TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_default()
    }
}

const REGISTERED_ONCE: &str = "names and labels are constants of this file, each registered once";

fn options(name: &str, help: &str) -> Opts {
    Opts::new(format!("cryptonym_{name}"), help)
}

fn histogram_options(name: &str, help: &str) -> HistogramOpts {
    HistogramOpts::new(format!("cryptonym_{name}"), help).buckets(DURATIONS.to_vec())
}

fn counter(registry: &Registry, name: &str, help: &str) -> IntCounter {
    register(registry, IntCounter::with_opts(options(name, help)))
}

fn counters(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    register(registry, IntCounterVec::new(options(name, help), labels))
}

fn gauge(registry: &Registry, name: &str, help: &str) -> IntGauge {
    register(registry, IntGauge::with_opts(options(name, help)))
}

fn gauges(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
    register(registry, IntGaugeVec::new(options(name, help), labels))
}

fn histogram(registry: &Registry, name: &str, help: &str) -> Histogram {
    register(registry, Histogram::with_opts(histogram_options(name, help)))
}

fn durations(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> HistogramVec {
    register(registry, HistogramVec::new(histogram_options(name, help), labels))
}

fn register<C: prometheus::core::Collector + Clone + 'static>(registry: &Registry, made: prometheus::Result<C>) -> C {
    let collector = made.expect(REGISTERED_ONCE);
    registry.register(Box::new(collector.clone())).expect(REGISTERED_ONCE);
    collector
}
