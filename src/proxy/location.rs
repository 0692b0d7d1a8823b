//! `Location` and `Content-Location` of an answer as the absolute URL that they mean (RFC 9110 §10.2.2, RFC 3986 §5.2).
//!
//! An upstream may name a place from its root, from the request's folder or whole. What it means must be known before it
//! can be rewritten. Nothing here decides whether the place is ours.

/// Resolves a reference against the URL of the request that the upstream saw: its origin and its path. What has a scheme
/// or another authority stays as it is.
pub fn resolve(origin: &str, path: &str, reference: &str) -> String {
    let end = reference.find(['/', '?', '#']).unwrap_or(reference.len());
    if reference.starts_with("//") || reference[..end].contains(':') {
        return reference.to_owned();
    }
    let folder = &path[..path.rfind('/').map_or(0, |slash| slash + 1)];
    let whole = match reference.as_bytes().first() {
        Some(b'/') => reference.to_owned(),
        None | Some(b'?' | b'#') => format!("{path}{reference}"),
        Some(_) => format!("{folder}{reference}"),
    };
    let (path, rest) = whole.split_at(whole.find(['?', '#']).unwrap_or(whole.len()));
    format!("{origin}{}{rest}", without_dots(path))
}

/// A path without `.` and `..` (RFC 3986 §5.2.4).
fn without_dots(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.strip_prefix('/').unwrap_or(path).split('/').peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            ".." => _ = kept.pop(),
            "." => {}
            name => {
                kept.push(name);
                continue;
            }
        }
        if last {
            kept.push(""); // a folder, so it keeps its slash
        }
    }
    format!("/{}", kept.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_means_what_the_rfc_says() {
        for (path, reference, meant) in [
            ("/r4/Patient", "/r4/Patient/1", "http://u/r4/Patient/1"),
            ("/r4/Patient", "Patient/1", "http://u/r4/Patient/1"),
            ("/r4/Patient/5", "6", "http://u/r4/Patient/6"),
            ("/r4/Patient/5", "6/_history/1?x=a/b", "http://u/r4/Patient/6/_history/1?x=a/b"),
            ("/r4/Patient/5", "../Observation/6", "http://u/r4/Observation/6"),
            ("/r4/Patient/5", "../../../../admin", "http://u/admin"),
            ("/r4/Patient/5", "./..", "http://u/r4/"),
            ("/r4/Patient/5", "/r4/../admin", "http://u/admin"),
            ("/r4/Patient/5", "", "http://u/r4/Patient/5"),
            ("/r4/Patient", "?page=2", "http://u/r4/Patient?page=2"),
            ("/r4", "Patient/1", "http://u/Patient/1"),
            ("/r4/Patient", "https://e/x/../y", "https://e/x/../y"),
            ("/r4/Patient", "//e/x", "//e/x"),
            ("/r4/Patient", "urn:uuid:1", "urn:uuid:1"),
        ] {
            assert_eq!(resolve("http://u", path, reference), meant, "{path} {reference}");
        }
    }
}
