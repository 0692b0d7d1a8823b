//! Media types: which bodies the rewriter can read, and what is asked for.
//!
//! A type that is missing, repeated, unknown or in another charset is no type: guessing would let bytes pass that no rule
//! has seen. What goes on is always written anew from the parsed form.

use crate::rewrite::Format;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue};

/// A media type whose bodies can be rewritten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Media {
    /// How the rewriter reads it.
    pub format: Format,
    name: &'static str,
    fhir_version: Option<&'static str>,
}

/// FHIR R4 §2.21.0.3, RFC 8259 and the bulk data guide.
const TYPES: [(&str, Format); 6] = [
    ("application/fhir+json", Format::Json),
    ("application/json", Format::Json),
    ("text/json", Format::Json),
    ("application/fhir+ndjson", Format::Ndjson),
    ("application/x-ndjson", Format::Ndjson),
    ("application/ndjson", Format::Ndjson),
];

/// Values of the parameter `fhirVersion` (FHIR R4 §2.21.1.1).
const VERSIONS: [&str; 3] = ["4.0", "4.3", "5.0"];

impl Media {
    /// The type of a body with these headers: one `Content-Type`, known, in UTF-8.
    pub fn of(headers: &HeaderMap) -> Option<Media> {
        let mut values = headers.get_all(CONTENT_TYPE).iter();
        let (Some(value), None) = (values.next(), values.next()) else { return None };
        let mut parts = value.to_str().ok()?.split(';').map(str::trim);
        let essence = parts.next()?;
        let &(name, format) = TYPES.iter().find(|(name, _)| name.eq_ignore_ascii_case(essence))?;
        let mut media = Media { format, name, fhir_version: None };
        let mut charset_seen = false;
        for parameter in parts {
            let (key, value) = parameter.split_once('=')?;
            let value = value.strip_prefix('"').and_then(|v| v.strip_suffix('"')).unwrap_or(value);
            match key.to_ascii_lowercase().as_str() {
                "charset" if !charset_seen && value.eq_ignore_ascii_case("utf-8") => charset_seen = true,
                "fhirversion" if media.fhir_version.is_none() => {
                    media.fhir_version = Some(VERSIONS.into_iter().find(|known| *known == value)?);
                }
                _ => return None,
            }
        }
        Some(media)
    }

    /// The header for the other side.
    pub fn header(&self) -> HeaderValue {
        let charset = if self.format == Format::Json { "; charset=utf-8" } else { "" };
        let version = self.fhir_version.map(|v| format!("; fhirVersion={v}")).unwrap_or_default();
        HeaderValue::try_from(format!("{}{charset}{version}", self.name)).expect("made of tokens from the tables above")
    }
}

/// What to ask the upstream for, given what the caller accepts. `None`: only types that cannot be rewritten.
/// `plain`: the route's rules know no FHIR, so its types are not asked for.
pub fn accept(headers: &HeaderMap, plain: bool) -> Option<HeaderValue> {
    let any = if plain { "application/json" } else { "application/fhir+json" };
    let known = || TYPES.iter().map(|(name, _)| *name).filter(|name| !(plain && name.contains("fhir")));
    let default = HeaderValue::from_static(any);
    let mut asked = false;
    let mut wanted: Vec<&'static str> = Vec::new();
    for range in headers.get_all(ACCEPT).iter().flat_map(|value| value.as_bytes().split(|&b| b == b',')) {
        asked = true;
        let essence = range.split(|&b| b == b';').next().unwrap_or_default().trim_ascii();
        if let Some(name) = known().find(|name| name.as_bytes().eq_ignore_ascii_case(essence))
            && !wanted.contains(&name)
        {
            wanted.push(name);
        } else if essence == b"*/*" || essence.eq_ignore_ascii_case(b"application/*") {
            wanted.push(any);
        }
    }
    match wanted.as_slice() {
        [] if asked => None,
        [] => Some(default),
        names => Some(HeaderValue::try_from(names.join(", ")).expect("made of names from the table above")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(values: &[&str], expected: Option<&str>) {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(CONTENT_TYPE, HeaderValue::from_str(value).unwrap());
        }
        let found = Media::of(&headers).map(|media| media.header());
        assert_eq!(found.as_ref().map(|value| value.to_str().unwrap()), expected, "{values:?}");
    }

    #[test]
    fn a_body_has_exactly_one_known_type_in_utf_8() {
        check(&["application/fhir+json"], Some("application/fhir+json; charset=utf-8"));
        check(&["Application/FHIR+JSON;charset=\"UTF-8\""], Some("application/fhir+json; charset=utf-8"));
        check(&["application/json; fhirVersion=4.0"], Some("application/json; charset=utf-8; fhirVersion=4.0"));
        check(&["application/fhir+ndjson"], Some("application/fhir+ndjson"));
        check(&[], None);
        check(&["application/json", "application/json"], None);
        check(&["application/fhir+json; charset=iso-8859-1"], None);
        check(&["application/fhir+json; charset=utf-8; charset=utf-7"], None);
        check(&["application/fhir+json; fhirVersion=Ng"], None);
        check(&["application/fhir+json; profile=x"], None);
        check(&["application/fhir+xml"], None);
        check(&["application/json, application/json"], None);
        check(&["multipart/form-data"], None);
    }

    #[test]
    fn only_what_can_be_rewritten_is_asked_for() {
        let ask = |text: &str| {
            let headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_str(text).unwrap())]);
            accept(&headers, false).map(|value| value.to_str().unwrap().to_owned())
        };
        assert_eq!(accept(&HeaderMap::new(), false).unwrap(), "application/fhir+json");
        assert_eq!(ask("*/*").as_deref(), Some("application/fhir+json"));
        assert_eq!(ask("application/fhir+xml, application/json;q=0.5").as_deref(), Some("application/json"));
        assert_eq!(ask("application/fhir+xml"), None);
        assert_eq!(accept(&HeaderMap::new(), true).unwrap(), "application/json");
        let fhir = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static("application/fhir+json"))]);
        assert_eq!(accept(&fhir, true), None);
    }
}
