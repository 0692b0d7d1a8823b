//! A configuration as written (contract §4): serde, and nothing else.
//!
//! Every field is optional, so that what is missing is reported together with what is wrong. What is written is judged in
//! the page above; no default is chosen here.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_saphyr::Spanned;
use std::collections::BTreeMap;

pub(super) type Text = Option<Spanned<String>>;
pub(super) type Later = Option<Spanned<IgnoredAny>>;

#[derive(Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub(super) struct File {
    #[serde(rename = "apiVersion")]
    #[cfg_attr(feature = "cli", schemars(with = "Option<String>"))]
    pub(super) api_version: Text,
    #[cfg_attr(feature = "cli", schemars(with = "Option<String>"))]
    pub(super) kind: Text,
    #[serde(default)]
    #[cfg_attr(feature = "cli", schemars(with = "Vec<ListenerFile>"))]
    pub(super) listeners: Vec<Spanned<ListenerFile>>,
    pub(super) admin: Option<AdminFile>,
    #[cfg_attr(feature = "cli", schemars(with = "Option<String>"))]
    pub(super) keyring: Text,
    #[serde(default)]
    pub(super) allow_readable_keys: bool,
    pub(super) audit: Option<AuditFile>,
    #[serde(default)]
    #[cfg_attr(feature = "cli", schemars(with = "Vec<RouteFile>"))]
    pub(super) routes: Vec<Spanned<RouteFile>>,
    #[serde(default)]
    #[cfg_attr(feature = "cli", schemars(with = "Vec<CallerFile>"))]
    pub(super) callers: Vec<Spanned<CallerFile>>,
    #[serde(default)]
    #[cfg_attr(feature = "cli", schemars(with = "Vec<GrantFile>"))]
    pub(super) grants: Vec<Spanned<GrantFile>>,
    pub(super) limits: Option<LimitsFile>,
    #[cfg_attr(feature = "cli", schemars(with = "Option<serde_json::Value>"))]
    pub(super) budgets: Later,
}

#[derive(Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct ListenerFile {
    #[cfg_attr(feature = "cli", schemars(with = "Option<String>"))]
    pub(super) address: Text,
    pub(super) tls: Option<ListenerTlsFile>,
    pub(super) proxy_protocol: Option<ProxyProtocolFile>,
    #[serde(default)]
    pub(super) allow_plain: bool,
}

#[derive(Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct ProxyProtocolFile {
    #[serde(default)]
    #[cfg_attr(feature = "cli", schemars(with = "Vec<String>"))]
    pub(super) from: Vec<Spanned<String>>,
}

#[derive(Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct ListenerTlsFile {
    #[cfg_attr(feature = "cli", schemars(with = "Option<String>"))]
    pub(super) cert: Text,
    #[cfg_attr(feature = "cli", schemars(with = "Option<String>"))]
    pub(super) key: Text,
    #[cfg_attr(feature = "cli", schemars(with = "Option<String>"))]
    pub(super) client_ca: Text,
    #[cfg_attr(feature = "cli", schemars(with = "Option<String>"))]
    pub(super) client_auth: Text,
    #[serde(default)]
    #[cfg_attr(feature = "cli", schemars(with = "Vec<PairFile>"))]
    pub(super) certificates: Vec<Spanned<PairFile>>,
}

#[derive(Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct PairFile {
    #[cfg_attr(feature = "cli", schemars(with = "Option<String>"))]
    pub(super) cert: Text,
    #[cfg_attr(feature = "cli", schemars(with = "Option<String>"))]
    pub(super) key: Text,
}

#[derive(Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct AdminFile {
    #[cfg_attr(feature = "cli", schemars(with = "Option<String>"))]
    pub(super) address: Text,
}

#[derive(Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct AuditFile {
    #[cfg_attr(feature = "cli", schemars(with = "Option<String>"))]
    pub(super) file: Text,
    #[cfg_attr(feature = "cli", schemars(with = "Option<bool>"))]
    pub(super) fsync: Option<Spanned<bool>>,
    #[cfg_attr(feature = "cli", schemars(with = "Option<serde_json::Value>"))]
    pub(super) checkpoint_key: Later,
}

#[derive(Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct RouteFile {
    #[cfg_attr(feature = "cli", schemars(with = "Option<String>"))]
    pub(super) name: Text,
    #[serde(rename = "match")]
    pub(super) matching: Option<MatchFile>,
    #[cfg_attr(feature = "cli", schemars(with = "Option<String>"))]
    pub(super) untrusted: Text,
    #[cfg_attr(feature = "cli", schemars(with = "Option<UpstreamFile>"))]
    pub(super) upstream: Option<Spanned<UpstreamFile>>,
    #[cfg_attr(feature = "cli", schemars(with = "Option<String>"))]
    pub(super) public_base: Text,
    #[cfg_attr(feature = "cli", schemars(with = "Option<String>"))]
    pub(super) rules: Text,
    #[cfg_attr(feature = "cli", schemars(with = "Option<String>"))]
    pub(super) domain: Text,
    #[cfg_attr(feature = "cli", schemars(with = "Option<u8>"))]
    pub(super) id_epoch: Option<Spanned<u8>>,
    #[cfg_attr(feature = "cli", schemars(with = "Option<String>"))]
    pub(super) overflow: Text,
    #[cfg_attr(feature = "cli", schemars(with = "Option<String>"))]
    pub(super) lossy_update: Text,
    #[cfg_attr(feature = "cli", schemars(with = "Option<CredentialsFile>"))]
    pub(super) credentials: Option<Spanned<CredentialsFile>>,
    #[cfg_attr(feature = "cli", schemars(with = "Option<serde_json::Value>"))]
    pub(super) reveal_found: Later,
    #[cfg_attr(feature = "cli", schemars(with = "Option<serde_json::Value>"))]
    pub(super) allow: Later,
    #[serde(default)]
    #[cfg_attr(feature = "cli", schemars(with = "Vec<String>"))]
    pub(super) encodings: Vec<Spanned<String>>,
}

#[derive(Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct MatchFile {
    #[cfg_attr(feature = "cli", schemars(with = "Option<String>"))]
    pub(super) host: Text,
    #[cfg_attr(feature = "cli", schemars(with = "Option<String>"))]
    pub(super) path: Text,
}

#[derive(Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct UpstreamFile {
    #[cfg_attr(feature = "cli", schemars(with = "Option<String>"))]
    pub(super) url: Text,
    pub(super) tls: Option<UpstreamTlsFile>,
    pub(super) timeouts: Option<TimeoutsFile>,
    #[serde(default)]
    #[cfg_attr(feature = "cli", schemars(with = "Vec<String>"))]
    pub(super) urls: Vec<Spanned<String>>,
    #[cfg_attr(feature = "cli", schemars(with = "Option<HealthFile>"))]
    pub(super) health: Option<Spanned<HealthFile>>,
}

#[derive(Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct HealthFile {
    #[cfg_attr(feature = "cli", schemars(with = "Option<String>"))]
    pub(super) path: Text,
    #[cfg_attr(feature = "cli", schemars(with = "Option<String>"))]
    pub(super) interval: Text,
    #[cfg_attr(feature = "cli", schemars(with = "Option<String>"))]
    pub(super) timeout: Text,
    #[cfg_attr(feature = "cli", schemars(with = "Option<u32>"))]
    pub(super) failures: Option<Spanned<u32>>,
    #[cfg_attr(feature = "cli", schemars(with = "Option<String>"))]
    pub(super) open: Text,
}

#[derive(Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct UpstreamTlsFile {
    #[cfg_attr(feature = "cli", schemars(with = "Option<String>"))]
    pub(super) ca: Text,
    #[cfg_attr(feature = "cli", schemars(with = "Option<String>"))]
    pub(super) cert: Text,
    #[cfg_attr(feature = "cli", schemars(with = "Option<String>"))]
    pub(super) key: Text,
}

#[derive(Default, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct TimeoutsFile {
    #[cfg_attr(feature = "cli", schemars(with = "Option<String>"))]
    pub(super) connect: Text,
    #[cfg_attr(feature = "cli", schemars(with = "Option<String>"))]
    pub(super) first_byte: Text,
    #[cfg_attr(feature = "cli", schemars(with = "Option<String>"))]
    pub(super) progress: Text,
    #[cfg_attr(feature = "cli", schemars(with = "Option<String>"))]
    pub(super) idle: Text,
    #[cfg_attr(feature = "cli", schemars(with = "Option<String>"))]
    pub(super) whole: Text,
}

#[derive(Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub(super) enum CredentialsFile {
    Drop,
    Forward,
    Replace(String),
}

#[derive(Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct CallerFile {
    #[cfg_attr(feature = "cli", schemars(with = "Option<String>"))]
    pub(super) name: Text,
    #[serde(rename = "match")]
    pub(super) matching: Option<MarkFile>,
}

#[derive(Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct MarkFile {
    #[cfg_attr(feature = "cli", schemars(with = "Option<String>"))]
    pub(super) dns: Text,
    #[cfg_attr(feature = "cli", schemars(with = "Option<String>"))]
    pub(super) subject: Text,
    #[cfg_attr(feature = "cli", schemars(with = "Option<String>"))]
    pub(super) spiffe: Text,
    #[cfg_attr(feature = "cli", schemars(with = "Option<serde_json::Value>"))]
    pub(super) jwt: Later,
    #[cfg_attr(feature = "cli", schemars(with = "Option<serde_json::Value>"))]
    pub(super) api_key_sha256: Later,
}

#[derive(Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct GrantFile {
    #[serde(default)]
    #[cfg_attr(feature = "cli", schemars(with = "Vec<String>"))]
    pub(super) callers: Vec<Spanned<String>>,
    #[serde(default)]
    #[cfg_attr(feature = "cli", schemars(with = "Vec<String>"))]
    pub(super) routes: Vec<Spanned<String>>,
    #[serde(default)]
    #[cfg_attr(feature = "cli", schemars(with = "BTreeMap<String, String>"))]
    pub(super) reidentify: BTreeMap<String, Spanned<String>>,
    #[serde(default)]
    #[cfg_attr(feature = "cli", schemars(with = "Vec<String>"))]
    pub(super) purposes: Vec<Spanned<String>>,
    #[cfg_attr(feature = "cli", schemars(with = "Option<serde_json::Value>"))]
    pub(super) pseudonymize: Later,
    #[cfg_attr(feature = "cli", schemars(with = "Option<serde_json::Value>"))]
    pub(super) expires: Later,
}

#[derive(Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct LimitsFile {
    #[cfg_attr(feature = "cli", schemars(with = "Option<usize>"))]
    pub(super) connections: Option<Spanned<usize>>,
    #[cfg_attr(feature = "cli", schemars(with = "Option<usize>"))]
    pub(super) connections_per_address: Option<Spanned<usize>>,
    #[cfg_attr(feature = "cli", schemars(with = "Option<usize>"))]
    pub(super) exchanges: Option<Spanned<usize>>,
    #[cfg_attr(feature = "cli", schemars(with = "Option<usize>"))]
    pub(super) threads: Option<Spanned<usize>>,
    #[cfg_attr(feature = "cli", schemars(with = "Option<String>"))]
    pub(super) stall: Text,
    #[cfg_attr(feature = "cli", schemars(with = "Option<String>"))]
    pub(super) drain_delay: Text,
    #[cfg_attr(feature = "cli", schemars(with = "Option<String>"))]
    pub(super) drain_timeout: Text,
}
