//! The proxy over real sockets: what reaches the upstream, what comes back, and what never does.
//!
//! Each test reads as a promise. The rewriter's own promises are tested elsewhere; here a body is a body.
#![cfg(feature = "proxy")]

#[path = "proxy_support/mod.rs"]
mod support;

use bytes::Bytes;
use cryptonym::encoding::stream::{Coding, Decoder, Encoder, Packing};
use http::{HeaderValue, Request, StatusCode};
use http_body_util::Full;
use std::time::{Duration, Instant};
use support::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn contains(haystack: &[u8], needle: &str) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle.as_bytes())
}

/// Stores a patient upstream and returns the token its id became.
async fn stored_token(world: &World) -> String {
    let got = world.send(Http::One, None, post(Http::One, "/fhir/Patient", JSON, PATIENT)).await;
    assert_eq!(got.status, StatusCode::OK, "{}", got.text());
    let stored: serde_json::Value = serde_json::from_slice(&world.upstream.stored()).unwrap();
    stored["id"].as_str().unwrap().to_owned()
}

// -- who sees what

#[tokio::test]
async fn a_named_caller_sees_identity_and_nobody_else_does() {
    for upstream_tls in [false, true] {
        let world = World::with(Setting { upstream_tls, ..Setting::default() }).await;
        for http in BOTH {
            let got = world.send(http, Some("ward"), post(http, "/fhir/Patient", JSON, PATIENT)).await;
            assert_eq!((got.status, got.complete), (StatusCode::OK, true), "{}", got.text());
            assert!(got.text().contains("real-1"), "{}", got.text());
            assert_eq!(got.header("cache-control"), Some("no-store"));
            assert!(got.header("vary").is_some());
            assert!(!contains(&world.upstream.raw(), "real-1"), "identity reached the upstream");
            let nobody = world.send(http, None, get(http, "/fhir/Patient/real-1")).await;
            assert_eq!(nobody.status, StatusCode::OK);
            assert!(!nobody.text().contains("real-1"), "{}", nobody.text());
            assert!(!contains(&world.upstream.raw(), "real-1"), "identity reached the upstream");
        }
        let lines = world.audit_lines();
        assert_eq!(lines.len(), 2, "one line for each small revealed answer: {lines:?}");
        assert!(lines.iter().all(|line| line.contains("ward") && !line.contains("real-1")));
    }
}

#[tokio::test]
async fn callers_are_told_by_dns_name_spiffe_id_or_common_name_and_purpose_counts() {
    let world = World::new().await;
    stored_token(&world).await;
    for (who, purpose, sees) in [
        (Some("ward"), None, true),
        (Some("ward"), Some("TREAT"), true),
        (Some("lab"), None, false),
        (Some("lab"), Some("TREAT"), false),
        (Some("lab"), Some("HRESCH"), true),
        (Some("lab"), Some("not a purpose"), false),
        (Some("desk"), Some("HRESCH"), false),
        (Some("desk"), Some("HOPERAT"), true),
        (Some("clerks"), Some("HOPERAT"), false),
        (Some("stranger"), Some("HRESCH"), false),
        (Some("both"), Some("HRESCH"), false),
        (None, Some("HRESCH"), false),
    ] {
        for http in BOTH {
            let mut request = get(http, "/fhir/Patient/real-1");
            if let Some(purpose) = purpose {
                request.headers_mut().insert("x-purpose-of-use", HeaderValue::from_static(purpose));
            }
            let got = world.send(http, who, request).await;
            assert_eq!(got.status, StatusCode::OK, "{who:?}");
            assert_eq!(got.text().contains("real-1"), sees, "{who:?} {purpose:?}: {}", got.text());
            assert!(!contains(&world.upstream.raw(), "x-purpose-of-use"));
        }
    }
}

#[tokio::test]
async fn a_listener_may_require_certificates() {
    let world = World::with(Setting { client_auth: "required", ..Setting::default() }).await;
    let mut stream = world.connect(None, Http::One).await; // in TLS 1.3 the alert comes after the client's handshake
    let _ = stream.write_all(b"GET /fhir/Patient/1 HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    let mut got = Vec::new();
    assert!(stream.read_to_end(&mut got).await.is_err() && got.is_empty());
    let ward = world.send(Http::Two, Some("ward"), post(Http::Two, "/fhir/Patient", JSON, PATIENT)).await;
    assert_eq!(ward.status, StatusCode::OK);
}

#[tokio::test]
async fn a_location_is_shown_as_far_as_the_permit_reaches_and_recorded() {
    let world = World::new().await;
    let token = stored_token(&world).await;
    let location = format!("{}/Patient/{token}/_history/1", world.upstream_base());
    for (who, sees) in [(None, false), (Some("ward"), true)] {
        let before = world.audit_lines().len();
        world.upstream.next(Reply::json("").status(201).header("location", &location).header("etag", "\"1\""));
        let got = world.send(Http::One, who, post(Http::One, "/fhir/Patient", JSON, PATIENT)).await;
        assert_eq!(got.status, StatusCode::CREATED, "{}", got.text());
        let shown = got.header("location").unwrap();
        assert!(shown.starts_with(PUBLIC_BASE), "{shown}");
        assert_eq!(shown.contains("real-1"), sees, "{shown}");
        assert_eq!(got.header("etag"), Some("W/\"1\""), "the bytes differ, so a strong tag would lie");
        assert_eq!(world.audit_lines().len() - before, usize::from(sees));
    }
    // From the root, from the request's folder, or the base itself (RFC 9110 §10.2.2).
    let base = world.upstream_base();
    for (place, shown) in [
        ("/r4/Patient/1", Some("/Patient/")),
        ("Patient/1", Some("/Patient/")),
        ("./Patient/1/_history/2", Some("/Patient/")),
        ("/r4", Some("")),
        ("/r4/", Some("")),
        (&base, Some("")),
        ("/r44/Patient/1", None),
        ("../admin", None),
        ("/r4/../admin", None),
    ] {
        world.upstream.next(Reply::json("").status(201).header("location", place));
        let got = world.send(Http::One, None, post(Http::One, "/fhir/Patient", JSON, PATIENT)).await;
        match shown {
            None => assert_eq!(got.status, StatusCode::BAD_GATEWAY, "{place}"),
            Some("") => assert_eq!(got.header("location"), Some(PUBLIC_BASE), "{place}: {}", got.text()),
            Some(below) => {
                let location = got.header("location").unwrap_or_default();
                assert!(location.starts_with(&format!("{PUBLIC_BASE}{below}")), "{place}: {location} {}", got.text());
            }
        }
    }
    for elsewhere in ["https://elsewhere.example/r4/Patient/1", "//elsewhere.example/Patient/1", "/admin"] {
        world.upstream.next(Reply::json("").status(307).header("location", elsewhere));
        let redirected = world.send(Http::One, Some("ward"), get(Http::One, "/fhir/Patient/1")).await;
        assert_eq!(redirected.status, StatusCode::BAD_GATEWAY, "{elsewhere}: {:?}", redirected.headers);
    }
}

#[tokio::test]
async fn an_id_too_long_for_a_token_is_refused_or_hashed_and_found_again() {
    let id = "hospital-ward-7-room-12-bed-3-monitor-00000047";
    let patient = PATIENT.replace("real-1", id);
    let world = World::new().await;
    let refused = world.send(Http::One, Some("ward"), post(Http::One, "/fhir/Patient", JSON, patient.clone())).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY, "{}", refused.text());
    assert!(refused.text().contains("id-too-long") && world.upstream.raw().is_empty(), "{}", refused.text());

    let world = World::with(Setting { route: "    overflow: hash\n", ..Setting::default() }).await;
    for who in [None, Some("ward")] {
        let got = world.send(Http::One, who, post(Http::One, "/fhir/Patient", JSON, patient.clone())).await;
        assert_eq!(got.status, StatusCode::OK, "{}", got.text());
        let shown: serde_json::Value = serde_json::from_str(&got.text()).unwrap();
        let stored: serde_json::Value = serde_json::from_slice(&world.upstream.stored()).unwrap();
        let (shown, hash) = (shown["id"].as_str().unwrap(), stored["id"].as_str().unwrap());
        assert!(shown != id && shown != hash && hash.starts_with('x') && hash.len() == 33, "{shown} {hash}");
        for name in [id, shown] {
            let found = world.send(Http::One, who, get(Http::One, &format!("/fhir/Patient/{name}"))).await;
            assert_eq!(found.status, StatusCode::OK, "{}", found.text());
            let seen = String::from_utf8_lossy(&world.upstream.raw()).into_owned();
            assert!(seen.contains(&format!("/Patient/{hash} ")), "{name}: {seen}");
        }
        assert!(!contains(&world.upstream.raw(), id), "identity reached the upstream");
    }
}

// -- headers

#[tokio::test]
async fn request_headers_cross_by_allow_list() {
    let world = World::new().await;
    for http in BOTH {
        let mut request = get(http, "/fhir/Patient/real-1");
        for (name, value) in [
            ("accept", "application/fhir+json;q=0.9, text/html"),
            ("accept-encoding", "gzip, br"),
            ("authorization", "Bearer real-1"),
            ("baggage", "patient=real-1"),
            ("cookie", "patient=real-1"),
            ("forwarded", "for=10.0.0.1"),
            ("if-none-match", "W/\"3\""),
            ("if-range", "W/\"3\""),
            ("prefer", "return=minimal, patient=real-1, respond-async"),
            ("range", "bytes=0-1"),
            ("referer", "https://ehr.example/Patient/real-1"),
            ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
            ("tracestate", "x=real-1"),
            ("user-agent", "real-1"),
            ("x-forwarded-for", "10.0.0.1"),
            ("x-http-method-override", "DELETE"),
            ("x-request-id", "real-1"),
            ("x-patient-id", "real-1"),
        ] {
            request.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        world.upstream.next(Reply::json(PATIENT));
        let got = world.send(http, None, request).await;
        assert_eq!(got.status, StatusCode::OK, "{}", got.text());
        let mut names: Vec<_> = world.upstream.last().headers.keys().map(|name| name.to_string()).collect();
        names.sort();
        assert_eq!(names, ["accept", "accept-encoding", "host", "if-none-match", "prefer", "traceparent"]);
        let headers = world.upstream.last().headers;
        assert_eq!(headers["accept"], "application/fhir+json");
        assert_eq!(headers["accept-encoding"], "identity");
        assert_eq!(headers["prefer"], "return=minimal");
        assert!(!contains(&world.upstream.raw(), "real-1"));
    }
}

#[tokio::test]
async fn a_read_has_no_body_and_no_chunks_upstream_and_a_small_write_a_length() {
    let world = World::new().await;
    stored_token(&world).await;
    world.send(Http::Two, None, get(Http::Two, "/fhir/Patient/1")).await;
    assert!(!contains(&world.upstream.raw().to_ascii_lowercase(), "transfer-encoding"));
    let seen = world.upstream.seen();
    assert!(seen[0].headers.contains_key("content-length") && !seen[1].headers.contains_key("content-length"));
}

#[tokio::test]
async fn conditional_reads_end_here_where_a_permit_is_held() {
    let world = World::new().await;
    stored_token(&world).await;
    let mut request = get(Http::One, "/fhir/Patient/1");
    request.headers_mut().insert("if-none-match", HeaderValue::from_static("W/\"1\""));
    request.headers_mut().insert("if-modified-since", HeaderValue::from_static("Mon, 23 Nov 2026 10:00:00 GMT"));
    world.send(Http::One, Some("ward"), request).await;
    let headers = world.upstream.last().headers;
    assert!(!headers.contains_key("if-none-match") && !headers.contains_key("if-modified-since"));
}

#[tokio::test]
async fn credentials_are_dropped_replaced_or_forwarded_as_the_route_says() {
    for (route, expected) in [
        ("", None),
        ("    credentials: drop", None),
        ("    credentials: forward", Some("Bearer caller")),
        ("    credentials: {replace: \"Bearer ${SET}\"}", Some("Bearer value")),
    ] {
        let world = World::with(Setting { route, ..Setting::default() }).await;
        let mut request = get(Http::One, "/fhir/metadata");
        request.headers_mut().insert("authorization", HeaderValue::from_static("Bearer caller"));
        world.upstream.next(Reply::json(PATIENT));
        world.send(Http::One, None, request).await;
        let sent = world.upstream.last().headers.get("authorization").map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(sent.as_deref(), expected, "{route}");
    }
}

#[tokio::test]
async fn answer_headers_cross_by_allow_list() {
    let world = World::new().await;
    for http in BOTH {
        let mut reply = Reply::json(PATIENT);
        for (name, value) in [
            ("accept-ranges", "bytes"),
            ("cache-control", "public, max-age=99999"),
            ("content-digest", "sha-256=:x:"),
            ("content-md5", "x"),
            ("etag", "W/\"3\""),
            ("last-modified", "Mon, 23 Nov 2026 10:00:00 GMT"),
            ("link", "<https://elsewhere.example/real-1>; rel=next"),
            ("server", "cloud"),
            ("set-cookie", "a=b"),
            ("warning", "199 - real-1"),
            ("x-request-id", "real-1"),
        ] {
            reply = reply.header(name, value);
        }
        world.upstream.next(reply);
        let got = world.send(http, None, get(http, "/fhir/Patient/1")).await;
        let mut names: Vec<_> = got.headers.keys().map(|name| name.to_string()).collect();
        names.sort();
        assert_eq!(names, ["cache-control", "content-length", "content-type", "date", "etag", "last-modified"]);
        assert_eq!(got.header("content-length").unwrap().parse::<usize>().unwrap(), got.body.len());
        assert_eq!(got.header("cache-control"), Some("private, no-cache"));
    }
}

// -- refusals

#[tokio::test]
async fn a_small_refused_body_never_reaches_the_upstream() {
    let world = World::new().await;
    for http in BOTH {
        let broken = &PATIENT[..PATIENT.len() - 2];
        let got = world.send(http, None, post(http, "/fhir/Patient", JSON, broken)).await;
        assert!(got.status.is_client_error() && got.complete, "{}", got.text());
        assert!(!got.code().is_empty() && !got.text().contains("real-1"));
        assert_eq!(got.header("content-type"), Some("application/fhir+json; charset=utf-8"));
    }
    assert!(world.upstream.seen().is_empty() && world.upstream.raw().is_empty());
}

#[tokio::test]
async fn bodies_are_read_by_their_media_type_only() {
    let world = World::new().await;
    for http in BOTH {
        for (headers, body, status) in [
            (&[][..], PATIENT, 415),
            (&[("content-type", "application/fhir+xml")], PATIENT, 415),
            (&[("content-type", "text/plain")], PATIENT, 415),
            (&[("content-type", "application/fhir+json; charset=latin1")], PATIENT, 415),
            (&[("content-type", JSON), ("content-type", JSON)], PATIENT, 415),
            (&[("content-type", JSON), ("content-encoding", "compress")], PATIENT, 415),
            (&[("content-type", JSON), ("content-encoding", "gzip, gzip")], PATIENT, 415),
            (&[("content-type", JSON), ("content-encoding", "gzip")], PATIENT, 400),
            (&[("content-type", JSON), ("content-encoding", "identity")], PATIENT, 200),
            (&[("content-type", "text/json;charset=UTF-8")], PATIENT, 200),
            (&[], "", 200),
        ] {
            let before = world.upstream.seen().len();
            let mut request = for_version(http, request("POST", "/fhir/Patient").body(Full::from(body)).unwrap());
            for (name, value) in headers {
                request.headers_mut().append(*name, HeaderValue::from_static(value));
            }
            world.upstream.next(Reply::json(PATIENT));
            let got = world.send(http, None, request).await;
            assert_eq!(got.status.as_u16(), status, "{http:?} {headers:?} {}", got.text());
            assert_eq!(world.upstream.seen().len() - before, usize::from(status == 200), "{headers:?}");
        }
    }
}

#[tokio::test]
async fn an_answer_that_cannot_be_read_is_a_clean_502() {
    let world = World::new().await;
    let cut = |mut reply: Reply| {
        reply.cut = true;
        reply
    };
    for http in BOTH {
        for (reply, code) in [
            (Reply::json("<html>real-1</html>").header("content-type", "text/html"), "upstream-media-type"),
            (Reply::json(PATIENT).header("content-encoding", "compress"), "upstream-encoding"),
            (Reply::json(PATIENT).header("content-encoding", "br"), "upstream-undecodable"),
            (Reply::json(PATIENT).status(206).header("content-range", "bytes 0-1/9"), "upstream-status"),
            (cut(Reply::json(PATIENT)), "upstream-cut"),
            (cut(Reply::ndjson(vec![Bytes::from(format!("{PATIENT}\n"))])), "upstream-cut"),
            (Reply::json("").status(304), "upstream-status"),
        ] {
            world.upstream.next(reply);
            let got = world.send(http, Some("ward"), get(http, "/fhir/Patient/1")).await;
            assert_eq!((got.status, got.code().as_str()), (StatusCode::BAD_GATEWAY, code), "{}", got.text());
            assert!(!got.text().contains("real-1"));
        }
        world.upstream.next(Reply::json("{\"resourceType\":"));
        let got = world.send(http, None, get(http, "/fhir/Patient/1")).await;
        assert_eq!(got.status, StatusCode::BAD_GATEWAY, "{}", got.text());
    }
}

#[tokio::test]
async fn a_body_refused_late_breaks_off_towards_the_upstream() {
    for upstream_tls in [false, true] {
        let world = World::with(Setting { upstream_tls, ..Setting::default() }).await;
        for http in BOTH {
            let body = Scripted::of(long_and_broken());
            let request =
                for_version(http, request("POST", "/fhir/Patient").header("content-type", NDJSON).body(body).unwrap());
            let got = world.send_body(http, None, request).await;
            assert!(got.status.is_client_error(), "{http:?}: {:?}", got.status);
            let seen = world.upstream.until(|seen| seen.over).await;
            assert!(!seen.complete, "half a body must not look like a whole one");
            assert!(!seen.body.is_empty() && !contains(&seen.body, "real-1"));
        }
    }
}

#[tokio::test]
async fn an_answer_refused_late_breaks_off_towards_the_caller() {
    for upstream_tls in [false, true] {
        let world = World::with(Setting { upstream_tls, ..Setting::default() }).await;
        for http in BOTH {
            world.upstream.next(Reply::ndjson(long_and_broken()));
            let got = world.send(http, None, get(http, "/fhir/Patient")).await;
            assert_eq!((got.status, got.complete), (StatusCode::OK, false), "{http:?}");
            let mut reply = Reply::ndjson(long_and_honest());
            reply.cut = true;
            world.upstream.next(reply);
            let got = world.send(http, None, get(http, "/fhir/Patient")).await;
            assert_eq!((got.status, got.complete), (StatusCode::OK, false), "{http:?}: cut at the upstream");
            world.upstream.next(Reply::ndjson(long_and_honest()));
            let got = world.send(http, None, get(http, "/fhir/Patient")).await;
            assert_eq!((got.status, got.complete), (StatusCode::OK, true), "{http:?}: an honest one ends");
        }
    }
}

#[tokio::test]
async fn a_request_cut_by_the_caller_is_cut_for_the_upstream() {
    let world = World::new().await;
    let mut stream = world.connect(None, Http::One).await;
    let head = format!(
        "POST /fhir/Patient HTTP/1.1\r\nhost: localhost\r\ncontent-type: {NDJSON}\r\ntransfer-encoding: chunked\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    for chunk in long_and_honest() {
        stream.write_all(format!("{:x}\r\n", chunk.len()).as_bytes()).await.unwrap();
        stream.write_all(&chunk).await.unwrap();
        stream.write_all(b"\r\n").await.unwrap();
    }
    stream.flush().await.unwrap();
    world.upstream.until(|seen| !seen.body.is_empty()).await;
    drop(stream);
    let seen = world.upstream.until(|seen| seen.over).await;
    assert!(!seen.body.is_empty() && !seen.complete);
}

#[tokio::test]
async fn updates_are_refused_where_rules_lose_data_and_the_route_says_so() {
    for (rules, route, status) in [
        ("lossy", "    lossy_update: refuse", 403),
        ("lossy", "    lossy_update: allow", 200),
        ("reversible", "    lossy_update: refuse", 200),
        ("reversible", "", 200),
    ] {
        let world = World::with(Setting { rules, route, ..Setting::default() }).await;
        let body = Full::from(PATIENT);
        let request = request("PUT", "/fhir/Patient/real-1").header("content-type", JSON).body(body).unwrap();
        let got = world.send(Http::One, None, for_version(Http::One, request)).await;
        assert_eq!(got.status.as_u16(), status, "{rules} {route}: {}", got.text());
        assert_eq!(world.upstream.seen().len(), usize::from(status == 200));
    }
}

#[tokio::test]
async fn heads_and_empty_answers_have_no_body() {
    let world = World::new().await;
    for http in BOTH {
        world.upstream.next(Reply::json(PATIENT));
        let head = for_version(http, request("HEAD", "/fhir/Patient/1").body(Full::default()).unwrap());
        let got = world.send(http, Some("ward"), head).await;
        assert_eq!((got.status, got.body.len(), got.complete), (StatusCode::OK, 0, true));
        assert_ne!(
            got.header("content-length"),
            Some(PATIENT.len().to_string().as_str()),
            "the rewritten length is unknown"
        );
        world.upstream.next(Reply::json("").status(204));
        let delete = for_version(http, request("DELETE", "/fhir/Patient/1").body(Full::default()).unwrap());
        let got = world.send(http, None, delete).await;
        assert_eq!((got.status, got.body.len(), got.complete), (StatusCode::NO_CONTENT, 0, true));
        world.upstream.next(Reply::json("").status(304));
        let mut conditional = get(http, "/fhir/Patient/1");
        conditional.headers_mut().insert("if-none-match", HeaderValue::from_static("W/\"1\""));
        let got = world.send(http, None, conditional).await;
        assert_eq!((got.status, got.complete), (StatusCode::NOT_MODIFIED, true));
    }
}

/// `field/proxy.md` §7 and beyond: what two programs could read differently is refused, or written anew.
#[tokio::test]
async fn ambiguous_requests_never_reach_the_upstream() {
    let world = World::new().await;
    let long_header = format!("GET /fhir/Patient/1 HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "x".repeat(64 * 1024));
    let many_headers = format!("GET /fhir/Patient/1 HTTP/1.1\r\nhost: a\r\n{}\r\n", "x: y\r\n".repeat(120));
    let long_target = format!("GET /fhir/{} HTTP/1.1\r\nhost: a\r\n\r\n", "x".repeat(70 * 1024));
    let get = "GET /fhir/Patient/1 HTTP/1.1\r\n";
    let post = "POST /fhir/Patient HTTP/1.1\r\nhost: a\r\ncontent-type: application/fhir+json\r\n";
    let probes: Vec<(&str, String)> = vec![
        ("content-length twice, different", format!("{post}content-length: 2\r\ncontent-length: 3\r\n\r\n{{}}}}")),
        ("content-length with a sign", format!("{post}content-length: +2\r\n\r\n{{}}")),
        ("content-length hexadecimal", format!("{post}content-length: 0x2\r\n\r\n{{}}")),
        ("content-length list", format!("{post}content-length: 2, 3\r\n\r\n{{}}")),
        ("te: gzip, chunked", format!("{post}transfer-encoding: gzip, chunked\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n")),
        ("te: identity and chunked", format!("{post}transfer-encoding: identity\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n")),
        ("te: chunked twice", format!("{post}transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n")),
        ("te: chunked, chunked", format!("{post}transfer-encoding: chunked, chunked\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n")),
        ("te: chunked, identity", format!("{post}transfer-encoding: chunked, identity\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n")),
        ("te: xchunked", format!("{post}transfer-encoding: xchunked\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n")),
        ("te with a space before its colon", format!("{post}transfer-encoding : chunked\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n")),
        ("te behind a vertical tab", format!("{post}transfer-encoding: \x0bchunked\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n")),
        ("te on http/1.0", "POST /fhir/Patient HTTP/1.0\r\nhost: a\r\ncontent-type: application/fhir+json\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n".into()),
        ("chunk size ended by a line feed", format!("{post}transfer-encoding: chunked\r\n\r\n2\n{{}}\r\n0\r\n\r\n")),
        ("chunk size 0x2", format!("{post}transfer-encoding: chunked\r\n\r\n0x2\r\n{{}}\r\n0\r\n\r\n")),
        ("chunk size overflow", format!("{post}transfer-encoding: chunked\r\n\r\n10000000000000002\r\n{{}}\r\n0\r\n\r\n")),
        ("chunk longer than its size", format!("{post}transfer-encoding: chunked\r\n\r\n1\r\n{{}}\r\n0\r\n\r\n")),
        ("no last chunk", format!("{post}transfer-encoding: chunked\r\n\r\n2\r\n{{}}\r\n")),
        ("folded header", format!("{get}host: a\r\nx: y\r\n z\r\n\r\n")),
        ("nul in a value", format!("{get}host: a\r\nx: y\0z\r\n\r\n")),
        ("no host", format!("{get}\r\n")),
        ("no host on http/1.0", "GET /fhir/Patient/1 HTTP/1.0\r\n\r\n".into()),
        ("host twice, same", format!("{get}host: a\r\nhost: a\r\n\r\n")),
        ("host twice, different", format!("{get}host: a\r\nhost: b\r\n\r\n")),
        ("host empty", format!("{get}host:\r\n\r\n")),
        ("host with user information", format!("{get}host: u@a\r\n\r\n")),
        ("host with a path", format!("{get}host: a/b\r\n\r\n")),
        ("host list", format!("{get}host: a, b\r\n\r\n")),
        ("host with two ports", format!("{get}host: a:1:2\r\n\r\n")),
        ("host with a port of letters", format!("{get}host: a:b\r\n\r\n")),
        ("host in broken brackets", format!("{get}host: [::1\r\n\r\n")),
        ("content-length negative", format!("{post}content-length: -2\r\n\r\n{{}}")),
        ("content-length empty", format!("{post}content-length: \r\n\r\n{{}}")),
        ("content-encoding unknown", format!("{post}content-encoding: compress\r\ncontent-length: 2\r\n\r\n{{}}")),
        ("content-encoding twice", format!("{post}content-encoding: gzip\r\ncontent-encoding: gzip\r\ncontent-length: 2\r\n\r\n{{}}")),
        ("content-encoding that lies", format!("{post}content-encoding: gzip\r\ncontent-length: 2\r\n\r\n{{}}")),
        ("header name with a space", format!("{get}host: a\r\nx y: z\r\n\r\n")),
        ("header without a colon", format!("{get}host: a\r\nxy\r\n\r\n")),
        ("header with an empty name", format!("{get}host: a\r\n: z\r\n\r\n")),
        ("space before the first header", format!("{get} host: a\r\n\r\n")),
        ("carriage return alone in a value", format!("{get}host: a\r\nx: y\rz: w\r\n\r\n")),
        ("http/1.2", "GET /fhir/Patient/1 HTTP/1.2\r\nhost: a\r\n\r\n".into()),
        ("http/3.0", "GET /fhir/Patient/1 HTTP/3.0\r\nhost: a\r\n\r\n".into()),
        ("no version", "GET /fhir/Patient/1 \r\nhost: a\r\n\r\n".into()),
        ("target without a slash", "GET fhir/Patient/1 HTTP/1.1\r\nhost: a\r\n\r\n".into()),
        ("two spaces before the target", "GET  /fhir/Patient/1 HTTP/1.1\r\nhost: a\r\n\r\n".into()),
        ("escaped nul", "GET /fhir/Patient%00 HTTP/1.1\r\nhost: a\r\n\r\n".into()),
        ("escaped backslash", "GET /fhir/Patient%5c1 HTTP/1.1\r\nhost: a\r\n\r\n".into()),
        ("slash escaped twice", "GET /fhir/Patient%252f1 HTTP/1.1\r\nhost: a\r\n\r\n".into()),
        ("chunk size negative", format!("{post}transfer-encoding: chunked\r\n\r\n-2\r\n{{}}\r\n0\r\n\r\n")),
        ("chunk size empty", format!("{post}transfer-encoding: chunked\r\n\r\n\r\n{{}}\r\n0\r\n\r\n")),
        ("absolute target of another host", "GET https://b/fhir/Patient/1 HTTP/1.1\r\nhost: a\r\n\r\n".into()),
        ("absolute target with user information", "GET https://u:p@a/fhir/Patient/1 HTTP/1.1\r\nhost: a\r\n\r\n".into()),
        ("absolute target of another scheme", "GET ftp://a/fhir/Patient/1 HTTP/1.1\r\nhost: a\r\n\r\n".into()),
        ("connection names host", format!("{get}host: a\r\nconnection: X-A, Host\r\n\r\n")),
        ("connection names authorization", format!("{get}host: a\r\nconnection: authorization\r\n\r\n")),
        ("connection names content-length", format!("{post}content-length: 2\r\nconnection: content-length\r\n\r\n{{}}")),
        ("connection names if-match", format!("{get}host: a\r\nconnection: if-match\r\n\r\n")),
        ("64 KiB header", long_header),
        ("120 headers", many_headers),
        ("70 KiB target", long_target),
        ("connect", "CONNECT a:443 HTTP/1.1\r\nhost: a:443\r\n\r\n".into()),
        ("trace", "TRACE /fhir/Patient/1 HTTP/1.1\r\nhost: a\r\n\r\n".into()),
        ("options *", "OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n".into()),
        ("a method in small letters", "get /fhir/Patient/1 HTTP/1.1\r\nhost: a\r\n\r\n".into()),
        ("expect: foo", format!("{get}host: a\r\nexpect: foo\r\n\r\n")),
        ("expect twice", format!("{get}host: a\r\nexpect: 100-continue\r\nexpect: 100-continue\r\n\r\n")),
        ("upgrade: websocket", format!("{get}host: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n")),
        ("x-provenance", format!("{get}host: a\r\nx-provenance: {{\"resourceType\":\"Provenance\"}}\r\n\r\n")),
        ("get with a body", format!("{get}host: a\r\ncontent-type: application/fhir+json\r\ncontent-length: 2\r\n\r\n{{}}")),
        ("another prefix", "GET /fhirx/Patient/1 HTTP/1.1\r\nhost: a\r\n\r\n".into()),
        ("dots out of the prefix", "GET /x/../fhir/Patient/1 HTTP/1.1\r\nhost: a\r\n\r\n".into()),
        ("dot segments", "GET /fhir/Patient/../../admin HTTP/1.1\r\nhost: a\r\n\r\n".into()),
        ("escaped dot segments", "GET /fhir/%2e%2e/admin HTTP/1.1\r\nhost: a\r\n\r\n".into()),
        ("escaped slash", "GET /fhir/Patient%2f1 HTTP/1.1\r\nhost: a\r\n\r\n".into()),
        ("empty segment", "GET /fhir//Patient/1 HTTP/1.1\r\nhost: a\r\n\r\n".into()),
        ("http/2 without tls negotiation", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into()),
        ("http/0.9", "GET /fhir/Patient/1\r\n".into()),
        ("not http", "\x16\x03\x01\x02\r\n\r\n".into()),
    ];
    assert!(probes.len() >= 75, "{}", probes.len());
    for (name, probe) in &probes {
        let got = String::from_utf8_lossy(&world.raw(probe.as_bytes()).await).into_owned();
        let status: u16 = got
            .strip_prefix("HTTP/1.1 ")
            .or(got.strip_prefix("HTTP/1.0 "))
            .map_or(0, |rest| rest[..3].parse().unwrap());
        assert!(status == 0 || (400..=501).contains(&status), "{name}: {got}");
    }
    assert!(world.upstream.raw().is_empty(), "{}", String::from_utf8_lossy(&world.upstream.raw()));
}

/// Rows that a proxy may take if it writes them anew: what reaches the upstream is one plain request.
#[tokio::test]
async fn what_is_taken_is_written_anew() {
    let world = World::new().await;
    let body = PATIENT;
    let both = format!(
        "POST /fhir/Patient HTTP/1.1\r\nhost: localhost\r\ncontent-type: {JSON}\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\nGET /fhir/smuggled HTTP/1.1\r\nhost: localhost\r\n\r\n",
        body.len()
    );
    world.raw(both.as_bytes()).await;
    let seen = world.upstream.seen();
    assert_eq!(seen.len(), 1, "the connection ends after length and chunks together: {seen:?}");
    assert_eq!(seen[0].headers.get("content-length").unwrap().to_str().unwrap(), seen[0].body.len().to_string());
    assert!(!seen[0].headers.contains_key("transfer-encoding"));

    let odd = "GET https://LOCALHOST/fhir/Patient/1#fragment HTTP/1.1\nHost: localhost\nUpgrade: h2c\nConnection: Upgrade, HTTP2-Settings, keep-alive\nHTTP2-Settings: x\nTE: trailers\nKeep-Alive: 5\n\n";
    world.raw(odd.as_bytes()).await;
    let seen = world.upstream.last();
    assert!(seen.target.starts_with("/r4/Patient/") && !seen.target.contains('#'), "{}", seen.target);
    for gone in ["upgrade", "connection", "http2-settings", "te", "keep-alive"] {
        assert!(!seen.headers.contains_key(gone), "{gone}");
    }
    let trailer = format!(
        "POST /fhir/Patient HTTP/1.1\r\nhost: localhost\r\ncontent-type: {JSON}\r\ntransfer-encoding: chunked\r\ntrailer: x-real\r\n\r\n{:x}\r\n{body}\r\n0\r\nx-real: real-1\r\n\r\n",
        body.len()
    );
    world.raw(trailer.as_bytes()).await;
    assert_eq!(world.upstream.seen().len(), 3);
    assert!(!contains(&world.upstream.raw(), "real-1"), "a trailer is no part of FHIR");
}

#[tokio::test]
async fn a_refused_upload_is_never_asked_for() {
    let world = World::new().await;
    let ask = |media: &str| {
        format!(
            "POST /fhir/Patient HTTP/1.1\r\nhost: localhost\r\ncontent-type: {media}\r\ncontent-length: 1000000\r\nexpect: 100-continue\r\n\r\n"
        )
    };
    let got = world.raw(ask("text/plain").as_bytes()).await;
    assert!(got.starts_with(b"HTTP/1.1 415"), "{}", String::from_utf8_lossy(&got));
    let got = world.raw(ask(JSON).as_bytes()).await;
    assert!(got.starts_with(b"HTTP/1.1 100"), "{}", String::from_utf8_lossy(&got));
}

#[tokio::test]
async fn a_refusal_of_a_long_upload_arrives() {
    let world = World::new().await;
    for _ in 0..5 {
        let mut body = b"not json\n".to_vec();
        body.resize(600_000, b' ');
        let got = world.send(Http::One, None, post(Http::One, "/fhir/Patient", NDJSON, body)).await;
        assert!(got.status.is_client_error() && got.complete, "{:?}", got.status);
    }
    assert!(world.upstream.raw().is_empty());
}

// -- content codings

fn packed(packing: Packing, plain: &[u8]) -> Vec<u8> {
    Encoder::new(packing).unwrap().finish(plain).unwrap()
}

fn unpacked(coding: Coding, coded: &[u8]) -> Vec<u8> {
    let (mut decoder, mut plain, mut taken) = (Decoder::new(coding).unwrap(), Vec::new(), 0);
    while taken < coded.len() {
        taken += decoder.step(&coded[taken..], &mut plain).unwrap();
    }
    decoder.finish(&mut plain).unwrap();
    plain
}

#[tokio::test]
async fn coded_bodies_are_read_on_both_sides() {
    let world = World::new().await;
    let lines = format!("{PATIENT}\n").repeat(40_000);
    for http in BOTH {
        for (packing, name) in [(Packing::Gzip, "gzip"), (Packing::Zstd, "zstd")] {
            let mut request = post(http, "/fhir/Patient", JSON, packed(packing, PATIENT.as_bytes()));
            request.headers_mut().insert("content-encoding", HeaderValue::from_static(name));
            let got = world.send(http, Some("ward"), request).await;
            assert_eq!(got.status, StatusCode::OK, "{}", got.text());
            assert!(got.text().contains("real-1"));
            let seen = world.upstream.last();
            assert!(!seen.headers.contains_key("content-encoding") && contains(&seen.body, "Patient"));
            assert!(!contains(&world.upstream.raw(), "real-1"));

            let coded = packed(packing, lines.as_bytes());
            world.upstream.next(Reply::ndjson(vec![coded.clone().into()]).header("content-encoding", name));
            let got = world.send(http, None, get(http, "/fhir/Patient")).await;
            assert_eq!((got.status, got.complete), (StatusCode::OK, true));
            assert_eq!(got.text().matches("resourceType").count(), 40_000);
            assert_eq!(got.header("content-encoding"), None);

            let cut = coded[..coded.len() - 1].to_vec();
            world.upstream.next(Reply::ndjson(vec![cut.into()]).header("content-encoding", name));
            let got = world.send(http, None, get(http, "/fhir/Patient")).await;
            assert!(!got.complete || got.status == StatusCode::BAD_GATEWAY, "a cut body is not a shorter one");
        }
    }
}

#[tokio::test]
async fn answers_are_compressed_where_the_route_says_so_and_nothing_is_revealed() {
    let world = World::with(Setting { route: "    encodings: [zstd, gzip]", ..Setting::default() }).await;
    stored_token(&world).await;
    let line = [&world.upstream.stored()[..], b"\n"].concat();
    for http in BOTH {
        for (who, accept, bytes, expected) in [
            (None, "gzip, deflate, br, zstd", 400_000, Some("zstd")),
            (None, "gzip;q=0.5", 400_000, Some("gzip")),
            (None, "gzip", 4_000, Some("gzip")),
            (None, "gzip", 10, None),
            (None, "zstd;q=0, gzip; q=0.0, br", 4_000, None),
            (Some("ward"), "gzip, zstd", 400_000, None),
            (Some("ward"), "gzip, zstd", 4_000, None),
        ] {
            let lines = line.repeat(1 + bytes / line.len());
            world.upstream.next(Reply::ndjson(vec![lines.clone().into()]));
            let mut request = get(http, "/fhir/Patient");
            request.headers_mut().insert("accept-encoding", HeaderValue::from_static(accept));
            let got = world.send(http, who, request).await;
            assert_eq!((got.status, got.complete), (StatusCode::OK, true), "{accept}");
            assert_eq!(got.header("content-encoding"), expected, "{who:?} {accept} {bytes}");
            let plain = match expected {
                Some(name) => unpacked(Coding::named(name.as_bytes()).unwrap(), &got.body),
                None => got.body,
            };
            if who.is_none() {
                assert!(plain == lines, "{accept}: a caller without a permit sees what is stored");
                assert_eq!(got.headers["vary"], "Accept-Encoding");
            } else {
                assert_eq!(plain.len(), lines.len() / line.len() * (PATIENT.len() + 1));
            }
        }
        assert_eq!(world.upstream.last().headers["accept-encoding"], "zstd, gzip");
    }
}

#[tokio::test]
async fn a_body_that_expands_without_end_is_refused() {
    let world = World::new().await;
    for http in BOTH {
        let bomb = packed(Packing::Zstd, &vec![b'\n'; 64 * 1024 * 1024]);
        let mut request = post(http, "/fhir/Patient", NDJSON, bomb.clone());
        request.headers_mut().insert("content-encoding", HeaderValue::from_static("zstd"));
        let got = world.send(http, None, request).await;
        assert_eq!((got.status, got.code().as_str()), (StatusCode::PAYLOAD_TOO_LARGE, "body-expands"));
        let seen = world.upstream.until(|seen| seen.over).await;
        assert!(!seen.complete, "the blank lines before it was clear what it is are no whole request");
    }
}

// -- audit

#[tokio::test]
async fn nothing_is_revealed_when_the_audit_file_cannot_be_written() {
    let world = World::with(Setting { audit: "/dev/full", ..Setting::default() }).await;
    stored_token(&world).await;
    for http in BOTH {
        let got = world.send(http, Some("ward"), get(http, "/fhir/Patient/real-1")).await;
        assert_eq!((got.status, got.code().as_str()), (StatusCode::SERVICE_UNAVAILABLE, "audit-unwritable"));
        assert!(!got.text().contains("real-1"));
        let stored = world.upstream.stored();
        world.upstream.next(Reply::ndjson(vec![[&stored[..], b"\n"].concat().repeat(20_000).into()]));
        let got = world.send(http, Some("ward"), get(http, "/fhir/Patient")).await;
        assert!(!got.text().contains("real-1"), "not in a stream either");
        let got = world.send(http, None, get(http, "/fhir/Patient/real-1")).await;
        assert_eq!(got.status, StatusCode::OK, "pseudonymizing goes on");
    }
    let (status, page) = world.admin("/readyz").await;
    assert_eq!((status, page.contains("[-]audit")), (StatusCode::SERVICE_UNAVAILABLE, true), "{page}");
    let (_, metrics) = world.admin("/metrics").await;
    assert!(!metrics.contains("cryptonym_audit_write_errors_total 0"), "{metrics}");
}

#[tokio::test]
async fn a_long_revealed_answer_is_recorded_batch_by_batch() {
    let world = World::new().await;
    stored_token(&world).await;
    let line = [&world.upstream.stored()[..], b"\n"].concat();
    let lines = 1_000_000 / line.len();
    world.upstream.next(Reply::ndjson(vec![line.repeat(lines / 10).into(); 10]));
    let got = world.send(Http::Two, Some("ward"), get(Http::Two, "/fhir/Patient")).await;
    assert!(got.complete);
    assert_eq!(got.text().matches("real-1").count(), lines / 10 * 10);
    let recorded = world.audit_lines().len();
    assert!((2..=16).contains(&recorded), "{recorded} lines for a megabyte");
    let text = std::fs::read(world.pki.folder.join("audit.jsonl")).unwrap();
    let lines = text.split(|&b| b == b'\n').filter(|line| !line.is_empty());
    let chain = cryptonym::audit::verify(cryptonym::audit::Chain::start(), lines).unwrap();
    assert_eq!(chain.lines() as usize, recorded, "one chain over all batches");
}

#[tokio::test]
async fn two_proxies_do_not_share_an_audit_file() {
    let world = World::new().await;
    let text = configuration(&Setting::default(), world.upstream.address);
    let settings = parse(&text, &world.pki.folder).unwrap();
    assert!(cryptonym::proxy::serve(settings, std::future::pending()).await.is_err());
}

// -- times, places, phases

#[tokio::test]
async fn an_upstream_that_is_away_or_slow_is_said_so() {
    let world = World::with(Setting { upstream: "timeouts: {first_byte: 200ms}", ..Setting::default() }).await;
    let mut slow = Reply::json(PATIENT);
    slow.delay = Duration::from_secs(20);
    world.upstream.next(slow);
    let started = Instant::now();
    let got = world.send(Http::One, None, get(Http::One, "/fhir/Patient/1")).await;
    assert_eq!((got.status, got.code().as_str()), (StatusCode::GATEWAY_TIMEOUT, "upstream-slow"));
    assert!(started.elapsed() < Duration::from_secs(5));

    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let pki = Pki::new();
    let mut away = Upstream::start(&pki, false).await;
    away.address = free;
    let world = World::around(Setting::default(), pki, away).await;
    let got = world.send(Http::One, None, get(Http::One, "/fhir/Patient/1")).await;
    assert_eq!((got.status, got.code().as_str()), (StatusCode::BAD_GATEWAY, "upstream-unreachable"));
}

#[tokio::test]
async fn an_upstream_whose_certificate_nobody_vouches_for_gets_nothing() {
    let other = Pki::new();
    let upstream = Upstream::start(&other, true).await;
    let world = World::around(Setting { upstream_tls: true, ..Setting::default() }, Pki::new(), upstream).await;
    let got = world.send(Http::One, None, post(Http::One, "/fhir/Patient", JSON, PATIENT)).await;
    assert_eq!(got.code(), "upstream-unreachable");
    assert!(world.upstream.raw().is_empty());
}

#[tokio::test]
async fn more_exchanges_than_allowed_are_refused_at_once() {
    let world = World::with(Setting { file: "limits: {exchanges: 1}", ..Setting::default() }).await;
    let mut slow = Reply::json(PATIENT);
    slow.delay = Duration::from_millis(600);
    world.upstream.next(slow);
    let first = world.send(Http::One, None, get(Http::One, "/fhir/Patient/1"));
    let second = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        world.send(Http::Two, None, get(Http::Two, "/fhir/Patient/1")).await
    };
    let (first, second) = tokio::join!(first, second);
    assert_eq!(first.status, StatusCode::OK);
    assert_eq!((second.status, second.code().as_str()), (StatusCode::SERVICE_UNAVAILABLE, "overloaded"));
    assert_eq!(second.header("retry-after"), Some("1"));
    let third = world.send(Http::One, None, get(Http::One, "/fhir/metadata")).await;
    assert_ne!(third.status, StatusCode::SERVICE_UNAVAILABLE, "the place is free again");
}

#[tokio::test]
async fn draining_ends_what_is_open_and_takes_nothing_new() {
    let world = World::new().await;
    assert_eq!(world.admin("/readyz").await, (StatusCode::OK, "ok\n".into()));
    let mut idle = world.connect(None, Http::One).await;
    for http in BOTH {
        let mut slow = Reply::json(PATIENT);
        slow.delay = Duration::from_millis(800);
        world.upstream.next(slow);
        assert!(http == Http::One || http == Http::Two);
    }
    let drain = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        world.proxy.drain();
        tokio::time::sleep(Duration::from_millis(150)).await;
        let (status, page) = world.admin("/readyz?verbose").await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(page.contains("[-]serving") && page.contains("[+]audit"), "{page}");
        assert!(world.try_connect(None, Http::One).await.is_err(), "no new connection");
        let mut rest = Vec::new();
        assert_eq!(idle.read_to_end(&mut rest).await.unwrap_or(0), 0, "an idle connection is closed");
    };
    let (one, two, ()) = tokio::join!(
        world.send(Http::One, None, get(Http::One, "/fhir/Patient/1")),
        world.send(Http::Two, None, get(Http::Two, "/fhir/Patient/1")),
        drain
    );
    for got in [one, two] {
        assert_eq!((got.status, got.complete), (StatusCode::OK, true));
    }
    assert!(world.proxy.ended().await, "all ended in time");
}

#[tokio::test]
async fn what_does_not_end_in_time_is_aborted() {
    let world = World::with(Setting { file: "limits: {drain_timeout: 300ms}", ..Setting::default() }).await;
    let mut slow = Reply::json(PATIENT);
    slow.delay = Duration::from_secs(20);
    world.upstream.next(slow);
    let drain = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        world.proxy.drain();
    };
    let started = Instant::now();
    let (got, ()) = tokio::join!(world.send(Http::One, None, get(Http::One, "/fhir/Patient/1")), drain);
    assert!(!got.complete && started.elapsed() < Duration::from_secs(5));
    assert!(!world.proxy.ended().await);
}

#[tokio::test]
async fn the_admin_listener_tells_numbers_and_names_only() {
    let world = World::new().await;
    stored_token(&world).await;
    world.send(Http::One, Some("ward"), get(Http::One, "/fhir/Patient/real-1")).await;
    world.send(Http::One, None, get(Http::One, "/fhir/Patient/real-1?name=Ng")).await;
    let odd = Request::builder().method("REAL1").uri("/fhir/real-1").header("host", "a").body(Full::default()).unwrap();
    world.send(Http::One, None, odd).await;
    assert_eq!(world.admin("/livez").await.0, StatusCode::OK);
    assert_eq!(world.admin("/nothing").await.0, StatusCode::NOT_FOUND);
    let (status, page) = world.admin("/config").await;
    assert_eq!(status, StatusCode::OK);
    let read: serde_json::Value = serde_json::from_str(&page).unwrap();
    assert_eq!(read["routes"][0]["name"], "cloud");
    assert_eq!(read["callers"], serde_json::json!(["desk", "lab", "ward"]));
    for secret in ["BEGIN", "keys.yaml", "server.key", "Bearer"] {
        assert!(!page.contains(secret), "{page}");
    }
    let (_, page) = world.admin("/metrics").await;
    for line in [
        "cryptonym_requests_total{code_class=\"2xx\",method=\"POST\",route=\"cloud\"} 1",
        "cryptonym_requests_total{code_class=\"4xx\",method=\"other\",route=\"none\"} 1",
        "cryptonym_requests_total{code_class=\"4xx\",method=\"GET\",route=\"cloud\"} 1",
        "cryptonym_reveals_total{outcome=\"revealed\"} 1",
        "cryptonym_refusals_total{code=\"http-method\"} 1",
        "cryptonym_inflight_requests 0",
        "cryptonym_body_bytes_total",
        "cryptonym_upstream_duration_seconds_count{route=\"cloud\"}",
        "cryptonym_tls_certificate_expiry_timestamp_seconds",
        "cryptonym_open_connections",
    ] {
        assert!(page.contains(line), "{line} is not in\n{page}");
    }
    assert!(!page.contains("real-1") && !page.contains("REAL1") && !page.contains("Ng"));
}

#[tokio::test]
async fn the_log_says_who_and_how_much_and_nothing_of_whom() {
    let world = World::new().await;
    for http in BOTH {
        world.send(http, Some("ward"), post(http, "/fhir/Patient/real-1", JSON, PATIENT)).await;
        world.send(http, Some("ward"), post(http, "/fhir/Patient/real-1", JSON, &PATIENT[..20])).await;
        world.send(http, None, get(http, "/fhir/Patient/real-1?name=Ng")).await;
        world.send(http, Some("ward"), get(http, "/fhir/Patient/real-1")).await;
        world.send(http, None, get(http, "/nowhere/real-1")).await;
        world.upstream.next(Reply::ndjson(long_and_broken()));
        world.send(http, None, get(http, "/fhir/Patient")).await;
    }
    settle().await;
    let log = log::text();
    for part in [
        "\"exchange\"",
        "\"caller\":\"ward\"",
        "\"route\":\"cloud\"",
        "\"status\":200",
        "\"code\":\"no-route\"",
        "\"bytes\"",
        "\"path\":\"Patient/", // as the upstream was asked
    ] {
        assert!(log.contains(part), "{part}");
    }
    // All tests of this file log here, so this holds for each of them.
    for secret in ["real-1", "Ng", "name=", "resourceType", "/fhir", "bearer", "Bearer"] {
        assert!(!log.contains(secret), "{secret} is in the log");
    }
}

#[tokio::test]
async fn a_reader_that_stalls_is_given_up() {
    let megabytes = vec![long_and_honest().remove(0); 2000];
    for (http, upstream, file) in [
        (Http::One, "timeouts: {whole: 2s}", ""),
        (Http::Two, "timeouts: {whole: 2s}", ""),
        (Http::One, "", "limits: {stall: 1s}"),
        (Http::Two, "", "limits: {stall: 1s}"),
    ] {
        let world = World::with(Setting { upstream, file, ..Setting::default() }).await;
        world.upstream.next(Reply::ndjson(megabytes.clone()));
        let io = hyper_util::rt::TokioIo::new(world.connect(None, http).await);
        // The answer's body is held and never read: its windows stay shut while the connection lives.
        let request = get(http, "/fhir/Patient");
        let held = match http {
            Http::One => {
                let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
                tokio::spawn(connection);
                sender.send_request(request).await.unwrap()
            }
            Http::Two => {
                let executor = hyper_util::rt::TokioExecutor::new();
                let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, io).await.unwrap();
                tokio::spawn(connection);
                sender.send_request(request).await.unwrap()
            }
        };
        assert_eq!(held.status(), StatusCode::OK);
        let started = Instant::now();
        while !world.admin("/metrics").await.1.contains("cryptonym_inflight_requests 0") {
            assert!(started.elapsed() < Duration::from_secs(20), "{http:?}: it is held for ever");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        drop(held);
    }
}

#[tokio::test]
async fn an_http_2_request_names_one_host() {
    let world = World::new().await;
    for (host, status) in [("localhost", 200), ("LOCALHOST", 200), ("elsewhere", 400)] {
        let mut request = get(Http::Two, "/fhir/Patient/1");
        request.headers_mut().insert("host", HeaderValue::from_static(host));
        world.upstream.next(Reply::json(PATIENT));
        let got = world.send(Http::Two, None, request).await;
        assert_eq!(got.status.as_u16(), status, "{host}: {}", got.text());
    }
}

// -- other settings while it runs

/// The configuration of a world, with some of its text replaced.
fn changed(world: &World, from: &str, to: &str) -> cryptonym::proxy::settings::Settings {
    let text = configuration(&Setting::default(), world.upstream.address);
    assert!(text.contains(from), "{from}");
    parse(&text.replace(from, to), &world.pki.folder).unwrap()
}

const WARD: &str = "  - {callers: [ward], reidentify: {\"*\": plain}}\n";

#[tokio::test]
async fn other_settings_are_taken_whole_and_an_open_exchange_keeps_those_it_began_with() {
    let world = World::new().await;
    stored_token(&world).await;
    let reload = world.proxy.reload();
    let io = hyper_util::rt::TokioIo::new(world.connect(Some("ward"), Http::Two).await);
    let executor = hyper_util::rt::TokioExecutor::new();
    let (sender, connection) = hyper::client::conn::http2::handshake(executor, io).await.unwrap();
    tokio::spawn(connection);
    let read = async |delay| {
        let mut reply = Reply::json(world.upstream.stored());
        reply.delay = Duration::from_millis(delay);
        world.upstream.next(reply);
        let answer = sender.clone().send_request(get(Http::Two, "/fhir/Patient/real-1")).await.unwrap();
        let body = http_body_util::BodyExt::collect(answer.into_body()).await.unwrap().to_bytes();
        contains(&body, "real-1")
    };
    let other = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        reload.take(changed(&world, WARD, "")).unwrap();
    };
    let (sees, ()) = tokio::join!(read(900), other);
    assert!(sees, "it began under a grant");
    assert!(!read(0).await, "the same connection, without the grant");
    reload.take(changed(&world, "audit.jsonl", "audit.jsonl")).unwrap();
    assert!(read(0).await, "and with it again");
    let recorded = world.audit_lines().len();
    assert_eq!(recorded, 2, "the audit file goes on");
    assert!(world.admin("/metrics").await.1.contains("cryptonym_config_last_reload_successful 1"));
}

#[tokio::test]
async fn settings_that_cannot_be_taken_leave_the_former_ones() {
    let world = World::new().await;
    stored_token(&world).await;
    let reload = world.proxy.reload();
    for (from, to, word) in [
        ("  - address: 127.0.0.1:0", "  - address: 127.0.0.1:1", "listeners"),
        ("admin: {address: \"127.0.0.1:0\"}", "admin: {address: \"127.0.0.1:1\"}", "admin.address"),
        ("callers:\n", "limits: {connections: 7}\ncallers:\n", "limits.connections"),
        ("callers:\n", "limits: {exchanges: 7}\ncallers:\n", "limits.exchanges"),
        ("audit.jsonl", "missing/audit.jsonl", "audit file"),
    ] {
        let kept = reload.take(changed(&world, from, to)).unwrap_err();
        assert!(kept.to_string().contains(word), "{kept}");
        assert!(world.admin("/metrics").await.1.contains("cryptonym_config_last_reload_successful 0"));
        let got = world.send(Http::One, Some("ward"), get(Http::One, "/fhir/Patient/real-1")).await;
        assert!(got.text().contains("real-1"), "{}", got.text());
        reload.take(changed(&world, "audit.jsonl", "audit.jsonl")).unwrap();
        reload.keep();
        assert!(world.admin("/metrics").await.1.contains("cryptonym_config_last_reload_successful 0"));
    }
}

#[tokio::test]
async fn sessions_outlive_a_certificate_and_not_an_authority() {
    let world = World::new().await;
    stored_token(&world).await;
    let reload = world.proxy.reload();
    let config = world.pki.client_config(Some("ward"), Http::One);
    let shake = async || {
        let stream = tokio::net::TcpStream::connect(world.proxy.addresses[0]).await.unwrap();
        let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
        let stream = tokio_rustls::TlsConnector::from(config.clone()).connect(name, stream).await.unwrap();
        let kind = stream.get_ref().1.handshake_kind();
        let io = hyper_util::rt::TokioIo::new(stream);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
        let connection = tokio::spawn(connection);
        let answer = sender.send_request(get(Http::One, "/fhir/Patient/real-1")).await.unwrap();
        let body = http_body_util::BodyExt::collect(answer.into_body()).await.unwrap().to_bytes();
        let resumed = kind == Some(rustls::HandshakeKind::Resumed);
        (resumed, contains(&body, "real-1"), connection, sender)
    };
    let (resumed, sees, open, _sender) = shake().await;
    assert_eq!((resumed, sees), (false, true));
    let other = Pki::new();
    // Another key pair of the same authority would do; the server's own, written anew, shows the same.
    reload.take(changed(&world, "audit.jsonl", "audit.jsonl")).unwrap();
    let (resumed, sees, _, _) = shake().await;
    assert_eq!((resumed, sees), (true, true), "the ticket outlives the certificate, and so does who it was");
    assert!(!open.is_finished(), "and an open connection");
    let authority = format!("client_ca: {}", other.folder.join("ca.pem").display());
    reload.take(changed(&world, "client_ca: ca.pem", &authority)).unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(5), open).await;
    assert!(ended.is_ok(), "a connection that nobody vouches for any more is wound up");
    let stream = tokio::net::TcpStream::connect(world.proxy.addresses[0]).await.unwrap();
    let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
    let resumed = match tokio_rustls::TlsConnector::from(config.clone()).connect(name, stream).await {
        Ok(stream) => stream.get_ref().1.handshake_kind() == Some(rustls::HandshakeKind::Resumed),
        Err(_) => false,
    };
    assert!(!resumed, "the session was made under another authority");
}

/// The command itself: it looks at its files, and heeds SIGHUP.
#[tokio::test]
async fn the_command_takes_changed_files_and_keeps_the_former_ones_if_they_are_wrong() {
    let pki = Pki::new();
    let command = env!("CARGO_BIN_EXE_cryptonym");
    let run = |arguments: &[&str]| {
        let mut run = std::process::Command::new(command);
        run.args(arguments).current_dir(&pki.folder).env("CRYPTONYM_LOG", "error");
        run
    };
    assert!(run(&["keys", "generate", "-o", "keys.yaml"]).output().unwrap().status.success());
    let free = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (address, admin) = (free(), free());
    let write = |name: &str| {
        let text = format!(
            "apiVersion: cryptonym/v1\nkind: Proxy\nlisteners: [{{address: \"{address}\"}}]\nadmin: {{address: \"{admin}\"}}\n\
             keyring: keys.yaml\nroutes: [{{name: {name}, untrusted: upstream, public_base: \"http://{address}\", \
             rules: fhir-r4-reversible, upstream: {{url: \"http://127.0.0.1:1/r4\"}}}}]\n"
        );
        std::fs::write(pki.folder.join("proxy.yaml"), text).unwrap();
    };
    let page = async |target: &str| {
        let mut stream = tokio::net::TcpStream::connect(admin).await.ok()?;
        let request = format!("GET {target} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut got = String::new();
        stream.read_to_string(&mut got).await.ok()?;
        Some(got)
    };
    let until = async |target: &str, word: &str| {
        let started = Instant::now();
        while !page(target).await.is_some_and(|page| page.contains(word)) {
            assert!(started.elapsed() < Duration::from_secs(60), "{target} never says {word}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    const TAKEN: &str = "cryptonym_config_last_reload_successful 1";
    const KEPT: &str = "cryptonym_config_last_reload_successful 0";
    write("first");
    let mut child = run(&["run", "--config", "proxy.yaml"]).spawn().unwrap();
    let signal = |name: &str| {
        let sent = std::process::Command::new("kill").args([name, &child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    };
    until("/config", "\"first\"").await;
    write("second");
    until("/config", "\"second\"").await;
    std::fs::write(pki.folder.join("proxy.yaml"), "kind: Proxy\n").unwrap();
    until("/metrics", KEPT).await;
    until("/config", "\"second\"").await;
    write("second");
    until("/metrics", TAKEN).await;
    std::fs::rename(pki.folder.join("keys.yaml"), pki.folder.join("away.yaml")).unwrap();
    signal("-HUP");
    until("/metrics", KEPT).await;
    std::fs::rename(pki.folder.join("away.yaml"), pki.folder.join("keys.yaml")).unwrap();
    signal("-HUP");
    until("/metrics", TAKEN).await;
    signal("-TERM");
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

// -- listeners

#[tokio::test]
async fn a_listed_peer_says_for_whom_it_speaks_and_each_address_has_its_share() {
    let world = World::with(Setting {
        listener: "    proxy_protocol: {from: [127.0.0.0/8]}",
        file: "limits: {connections_per_address: 1}",
        ..Setting::default()
    })
    .await;
    let shake = async |header: Vec<u8>| {
        let mut stream = tokio::net::TcpStream::connect(world.proxy.addresses[0]).await.unwrap();
        stream.write_all(&header).await.unwrap();
        let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
        tokio_rustls::TlsConnector::from(world.pki.client_config(None, Http::One)).connect(name, stream).await
    };
    let for_client = |last: u8| {
        let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
        header.extend([192, 0, 2, last, 127, 0, 0, 1, 0x12, 0x34, 1, 187]);
        header
    };
    let first = shake(for_client(1)).await.unwrap();
    assert!(shake(for_client(1)).await.is_err(), "it has its share");
    let second = shake(for_client(2)).await.unwrap();
    assert!(shake(vec![]).await.is_err(), "a listed peer must say it");
    assert!(shake(b"PROXY TCP4 192.0.2.3 127.0.0.1 4660 443\r\n".to_vec()).await.is_err(), "in the second version");
    drop((first, second));
    settle().await;
    assert!(shake(for_client(1)).await.is_ok(), "its share is free again");
    let page = world.admin("/metrics").await.1;
    assert!(page.contains("cryptonym_connections_refused_total{reason=\"per-address\"} 1"), "{page}");
    assert!(page.contains("cryptonym_connections_refused_total{reason=\"proxy-protocol\"} 2"), "{page}");

    let plain = World::new().await;
    let mut stream = tokio::net::TcpStream::connect(plain.proxy.addresses[0]).await.unwrap();
    stream.write_all(&for_client(1)).await.unwrap();
    let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
    let connector = tokio_rustls::TlsConnector::from(plain.pki.client_config(None, Http::One));
    assert!(connector.connect(name, stream).await.is_err(), "nobody else's word is read");
}

#[tokio::test]
async fn a_unix_socket_serves_and_its_file_goes_with_it() {
    let pki = Pki::new();
    let upstream = Upstream::start(&pki, false).await;
    let text = configuration(&Setting::default(), upstream.address);
    let (begin, end) = (text.find("listeners:").unwrap(), text.find("admin:").unwrap());
    let text = format!("{}listeners: [{{address: \"unix:proxy.sock\"}}]\n{}", &text[..begin], &text[end..]);
    let text = text[..text.find("callers:").unwrap()].to_owned();
    let path = pki.folder.join("proxy.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap()); // what a crash left behind
    for _ in 0..2 {
        let settings = parse(&text, &pki.folder).unwrap();
        let proxy = cryptonym::proxy::serve(settings, std::future::pending()).await.unwrap();
        assert!(proxy.addresses.is_empty());
        let again = parse(&text, &pki.folder).unwrap();
        let taken = cryptonym::proxy::serve(again, std::future::pending()).await;
        assert!(taken.is_err(), "a socket that is served is not taken");
        let mut stream = tokio::net::UnixStream::connect(&path).await.unwrap();
        upstream.next(Reply::json(PATIENT));
        let request = b"GET /fhir/Patient/1 HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let mut got = Vec::new();
        stream.read_to_end(&mut got).await.unwrap();
        assert!(got.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&got));
        proxy.drain();
        assert!(proxy.ended().await);
        assert!(!path.exists());
    }
}

#[test]
fn a_listener_without_tls_is_local_or_named() {
    let pki = Pki::new();
    let taken = |listener: &str| {
        let text = format!(
            "apiVersion: cryptonym/v1\nkind: Proxy\nlisteners: [{{{listener}}}]\nkeyring: k\nroutes: [{{name: a, untrusted: upstream, \
             public_base: \"http://a\", rules: reversible, upstream: {{url: \"http://127.0.0.1:1/r4\"}}}}]\n"
        );
        parse(&text, &pki.folder).map(|_| ()).map_err(|mistakes| mistakes[0].what.clone())
    };
    for listener in [
        "address: \"127.0.0.1:0\"",
        "address: \"[::1]:0\"",
        "address: \"unix:a\"",
        "address: \"0.0.0.0:0\", allow_plain: true",
    ] {
        assert_eq!(taken(listener), Ok(()), "{listener}");
    }
    for (listener, word) in [
        ("address: \"0.0.0.0:0\"", "no TLS"),
        ("address: \"unix:\"", "`address`"),
        ("address: \"127.0.0.1:0\", proxy_protocol: {}", "proxy_protocol.from"),
        ("address: \"127.0.0.1:0\", proxy_protocol: {from: [10.1.0.0/8]}", "proxy_protocol.from"),
    ] {
        let mistake = taken(listener).unwrap_err();
        assert!(mistake.contains(word), "{listener}: {mistake}");
    }
}

// -- configuration

#[test]
fn every_mistake_of_a_configuration_is_reported_at_once_with_its_line() {
    let pki = Pki::new();
    let text = r#"apiVersion: cryptonym/v2
kind: Proxy
listeners:
  - address: 0.0.0.0:8443
  - address: nowhere
    proxy_protocol: {from: [ten]}
budgets: [{name: x}]
routes:
  - name: cloud one
    untrusted: nobody
    upstream: {url: "http://cloud.example/r4", timeouts: {connect: soon}}
    rules: lossy
    id_epoch: 64
    overflow: cut
    credentials: {replace: "Bearer ${UNSET}"}
  - name: second
    untrusted: upstream
    public_base: https://proxy.example/x
    upstream: {url: "https://cloud.example/r4", tls: {ca: missing.pem}}
    rules: lossy
    lossy_update: maybe
callers:
  - {name: ward, match: {dns: a, subject: b}}
  - {name: key, match: {api_key_sha256: x}}
grants:
  - {callers: [nobody], reidentify: {"*": masked}}
limits: {exchanges: 0}
"#;
    let Err(mistakes) = parse(text, &pki.folder) else { panic!("it was taken") };
    let report: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
    for (line, word) in [
        (0, "`keyring` is missing"),
        (1, "`apiVersion`"),
        (4, "no TLS"),
        (5, "`address`"),
        (6, "`proxy_protocol.from`"),
        (7, "`budgets` is not supported yet"),
        (9, "`name`"),
        (9, "`public_base` is missing"),
        (9, "`lossy_update` is missing"),
        (10, "`untrusted`"),
        (11, "without TLS"),
        (11, "`timeouts.connect`"),
        (13, "1 to 63"),
        (14, "`overflow`"),
        (15, "UNSET is not set"),
        (19, "missing.pem"),
        (21, "`lossy_update`"),
        (23, "no listener asks"),
        (23, "exactly one mark"),
        (24, "`match.api_key_sha256` is not supported yet"),
        (26, "`callers`"),
        (26, "`reidentify`"),
        (27, "`limits.exchanges`"),
    ] {
        let found = mistakes.iter().any(|mistake| mistake.line == line && mistake.what.contains(word));
        assert!(found, "line {line}: {word} is not in\n{}", report.join("\n"));
    }
}

#[test]
fn an_unknown_key_is_a_mistake_with_its_line() {
    let pki = Pki::new();
    let Err(mistakes) = parse("apiVersion: cryptonym/v1\nkind: Proxy\nlistener: []\n", &pki.folder) else {
        panic!("taken")
    };
    assert!(mistakes[0].line == 3 && mistakes[0].what.contains("listener"), "{mistakes:?}");
}

// -- helpers

/// Time for the other side to see what happened; every wait for something positive polls instead.
async fn settle() {
    tokio::time::sleep(Duration::from_millis(300)).await;
}
