//! HTTP/2 as no library writes it: what two programs could read differently, or what would become two requests on HTTP/1, never
//! reaches the upstream. Adding a probe costs a line.
#![cfg(feature = "proxy")]

#[path = "proxy_support/mod.rs"]
mod support;

use support::frames::*;
use support::*;

/// A write with these fields more, and this body in one frame.
fn write(more: &[(&str, &str)], body: &str) -> Vec<u8> {
    let mut fields =
        vec![(":method", "POST"), (":scheme", "https"), (":authority", "localhost"), (":path", "/fhir/Patient")];
    fields.push(("content-type", JSON));
    fields.extend(more);
    [frame(HEADERS, END_HEADERS, 1, &block(&fields)), frame(DATA, END_STREAM, 1, body.as_bytes())].concat()
}

/// A read with one of its four fields in another form.
fn with(name: &str, value: &str) -> Vec<u8> {
    let fields: Vec<_> =
        read(&[]).into_iter().map(|field| if field.0 == name { (name, value) } else { field }).collect();
    ask(1, &fields)
}

fn without(name: &str) -> Vec<u8> {
    ask(1, &read(&[]).into_iter().filter(|field| field.0 != name).collect::<Vec<_>>())
}

fn more(name: &str, value: &str) -> Vec<u8> {
    ask(1, &read(&[(name, value)]))
}

#[tokio::test]
async fn ambiguous_frames_never_reach_the_upstream() {
    let world = World::new().await;
    let honest = ask(1, &read(&[]));
    let long = "x".repeat(20_000);
    let many: Vec<(&str, &str)> = (0..600).map(|_| ("x", "y")).collect();
    let upload = write(&[], "").split_off(0);
    let head_only = |fields: &[(&str, &str)]| frame(HEADERS, END_HEADERS, 1, &block(fields));
    let probes: Vec<(&str, Vec<u8>)> = vec![
        // names and values that would be lines on HTTP/1
        ("a line end in a value", more("x", "y\r\nhost: evil")),
        ("a line feed in a value", more("x", "y\nz: w")),
        ("a carriage return in a value", more("x", "y\rz: w")),
        ("null in a value", more("x", "y\0z")),
        ("a request in a value", more("x", "y\r\n\r\nGET /fhir/smuggled HTTP/1.1\r\nhost: localhost\r\n\r\n")),
        ("a line end in a name", more("x: y\r\nz", "w")),
        ("a colon in a name", more("x:y", "z")),
        ("a space in a name", more("x y", "z")),
        ("an empty name", more("", "z")),
        ("a name in capitals", more("X-Name", "z")),
        ("content-length in capitals", more("Content-Length", "5")),
        ("a line end in the path", with(":path", "/fhir/Patient/1 HTTP/1.1\r\nhost: evil\r\n\r\n")),
        ("a space in the path", with(":path", "/fhir/Patient/1 HTTP/1.1")),
        ("a line end in the method", with(":method", "GET / HTTP/1.1\r\nhost: evil\r\n\r\nGET")),
        ("a space in the method", with(":method", "GET /fhir/metadata")),
        ("a line end in the authority", with(":authority", "localhost\r\nx: y")),
        ("a line end in the scheme", with(":scheme", "https\r\n")),
        // the four fields
        ("an absolute path", with(":path", "https://evil/fhir/Patient/1")),
        ("a path without a slash", with(":path", "fhir/Patient/1")),
        ("an empty path", with(":path", "")),
        ("a path of a star", with(":path", "*")),
        ("a path of two slashes", with(":path", "//evil/fhir/Patient/1")),
        ("dots in the path", with(":path", "/x/../fhir/Patient/1")),
        ("escaped dots in the path", with(":path", "/fhir/%2e%2e/admin")),
        ("an escaped slash", with(":path", "/fhir/Patient%2f1")),
        ("a backslash", with(":path", "/fhir/..\\admin")),
        ("no method", without(":method")),
        ("no scheme", without(":scheme")),
        ("no path", without(":path")),
        ("no authority", without(":authority")),
        ("two methods", more(":method", "GET")),
        ("two schemes", more(":scheme", "https")),
        ("two paths", more(":path", "/fhir/Patient/2")),
        ("two authorities", more(":authority", "evil")),
        ("another pseudo-header", more(":evil", "1")),
        ("a pseudo-header of answers", more(":status", "200")),
        ("a protocol", more(":protocol", "websocket")),
        ("a pseudo-header behind a header", ask(1, &[&read(&[])[..3], &[("x", "y")], &read(&[])[3..]].concat())),
        ("an empty authority", with(":authority", "")),
        ("user information", with(":authority", "u:p@localhost")),
        ("an authority with a path", with(":authority", "localhost/x")),
        ("another scheme", with(":scheme", "ftp")),
        ("a method in small letters", with(":method", "get")),
        ("connect", ask(1, &[(":method", "CONNECT"), (":authority", "evil:443")])),
        (
            "connect with a protocol",
            ask(1, &[&[(":method", "CONNECT"), (":protocol", "websocket")][..], &read(&[])[1..]].concat()),
        ),
        ("trace", with(":method", "TRACE")),
        ("options", with(":method", "OPTIONS")),
        ("another host", more("host", "evil")),
        ("two hosts", ask(1, &read(&[("host", "localhost"), ("host", "localhost")]))),
        // headers of a connection
        ("connection", more("connection", "close")),
        ("connection names host", more("connection", "host")),
        ("keep-alive", more("keep-alive", "5")),
        ("proxy-connection", more("proxy-connection", "close")),
        ("upgrade", more("upgrade", "websocket")),
        (
            "transfer-encoding",
            write(&[("transfer-encoding", "chunked")], "0\r\n\r\nGET /fhir/smuggled HTTP/1.1\r\n\r\n"),
        ),
        ("te with more than trailers", more("te", "gzip")),
        ("expect of something", more("expect", "200-maybe")),
        ("a resource in a header", more("x-provenance", "{}")),
        // lengths
        ("a length less than the body", write(&[("content-length", "5")], PATIENT)),
        ("a length more than the body", write(&[("content-length", "500")], PATIENT)),
        ("no length at all in a length", write(&[("content-length", "")], PATIENT)),
        ("a length with a sign", write(&[("content-length", "+40")], PATIENT)),
        ("a negative length", write(&[("content-length", "-1")], PATIENT)),
        ("two lengths", write(&[("content-length", "40"), ("content-length", "5")], PATIENT)),
        ("a list of lengths", write(&[("content-length", "40, 5")], PATIENT)),
        ("a length that a read has no body for", more("content-length", "5")),
        (
            "a read with a body",
            [head_only(&read(&[("content-type", JSON)])), frame(DATA, END_STREAM, 1, b"{}")].concat(),
        ),
        // sizes
        ("a header list too large", more("x", &long)),
        ("too many fields", ask(1, &read(&many))),
        // frames
        ("data on no stream", frame(DATA, END_STREAM, 0, b"{}")),
        ("data on a stream that is not open", frame(DATA, END_STREAM, 1, b"{}")),
        ("headers on no stream", frame(HEADERS, END_STREAM | END_HEADERS, 0, &block(&read(&[])))),
        ("headers on an even stream", frame(HEADERS, END_STREAM | END_HEADERS, 2, &block(&read(&[])))),
        (
            "a lower stream after a higher",
            [frame(HEADERS, END_HEADERS, 5, &block(&read(&[("content-type", "x/y")]))), ask(3, &read(&[]))].concat(),
        ),
        ("continuation of nothing", frame(CONTINUATION, END_HEADERS, 1, &block(&read(&[])))),
        (
            "another frame amid headers",
            [frame(HEADERS, END_STREAM, 1, &block(&read(&[]))), frame(PING, 0, 0, &[0; 8])].concat(),
        ),
        (
            "continuation of another stream",
            [frame(HEADERS, END_STREAM, 1, &block(&read(&[]))), frame(CONTINUATION, END_HEADERS, 3, b"")].concat(),
        ),
        ("padding longer than its frame", frame(HEADERS, END_STREAM | END_HEADERS | PADDED, 1, &[255, 1, 2])),
        ("a push by a client", frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2])),
        ("settings of a wrong length", frame(SETTINGS, 0, 0, &[0; 5])),
        ("settings on a stream", frame(SETTINGS, 0, 1, &[])),
        ("an acknowledgement with settings", frame(SETTINGS, 1, 0, &[0; 6])),
        ("push allowed twice over", frame(SETTINGS, 0, 0, &[0, 2, 0, 0, 0, 2])),
        ("a window beyond its bound", frame(SETTINGS, 0, 0, &[0, 4, 255, 255, 255, 255])),
        ("a frame size below its bound", frame(SETTINGS, 0, 0, &[0, 5, 0, 0, 0, 1])),
        ("a ping of a wrong length", frame(PING, 0, 0, &[0; 7])),
        ("a ping on a stream", frame(PING, 0, 1, &[0; 8])),
        ("a reset of an idle stream", frame(RST_STREAM, 0, 1, &[0; 4])),
        ("a reset of a wrong length", [honest[..0].to_vec(), frame(RST_STREAM, 0, 1, &[0; 3])].concat()),
        ("a window widened by nothing", frame(WINDOW_UPDATE, 0, 0, &[0; 4])),
        (
            "a window widened too far",
            [frame(WINDOW_UPDATE, 0, 0, &[127, 255, 255, 255]), frame(WINDOW_UPDATE, 0, 0, &[127, 255, 255, 255])]
                .concat(),
        ),
        ("a window update of a wrong length", frame(WINDOW_UPDATE, 0, 0, &[0; 3])),
        ("a frame too large", frame(DATA, 0, 1, &[0; 20_000])),
        ("a header block that is none", frame(HEADERS, END_STREAM | END_HEADERS, 1, &[0xff; 20])),
        ("a reference beyond the table", frame(HEADERS, END_STREAM | END_HEADERS, 1, &[0xff, 0xff, 0x7f])),
        ("the reference zero", frame(HEADERS, END_STREAM | END_HEADERS, 1, &[0x80])),
        (
            "a text longer than its block",
            frame(HEADERS, END_STREAM | END_HEADERS, 1, &[0, 1, b'x', 127, 255, 255, 127]),
        ),
        ("a table beyond its bound", frame(HEADERS, END_STREAM | END_HEADERS, 1, &[0x3f, 0xff, 0xff, 0x7f])),
        (
            "trailers with a pseudo-header",
            [upload[..upload.len() - 9].to_vec(), frame(DATA, 0, 1, b"{}"), ask(1, &[(":path", "/fhir/smuggled")])]
                .concat(),
        ),
        (
            "trailers that do not end",
            [
                upload[..upload.len() - 9].to_vec(),
                frame(DATA, 0, 1, b"{}"),
                frame(HEADERS, END_HEADERS, 1, &block(&[("x", "y")])),
            ]
            .concat(),
        ),
    ];
    assert!(probes.len() >= 90, "{}", probes.len());
    for (name, probe) in &probes {
        let came = send(&world, &[preface(&[]), probe.clone()].concat()).await;
        let refused = came.reset || came.gone || came.status.is_some_and(|status| (400..=501).contains(&status));
        assert!(refused, "{name}: {came:?}");
        let raw = world.upstream.raw();
        assert!(raw.is_empty(), "{name}: {came:?} {}", String::from_utf8_lossy(&raw));
    }
    let came = send(&world, b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n").await;
    assert!(came.gone, "a preface that is none: {came:?}");
    world.upstream.next(Reply::json(PATIENT));
    let came = send(&world, &[preface(&[]), honest].concat()).await;
    assert_eq!(came.status, Some(200), "an honest request among them is answered");
}

/// What a proxy may take if it writes it anew: one plain request reaches the upstream.
#[tokio::test]
async fn what_is_taken_from_frames_is_written_anew() {
    let world = World::new().await;
    for (name, probe) in [
        ("trailers may be had", more("te", "trailers")),
        ("crumbs of cookies", ask(1, &read(&[("cookie", "a=1"), ("cookie", "b=2")]))),
        ("the same host twice over", more("host", "localhost")),
        ("priority of a stream", [frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 16]), ask(1, &read(&[]))].concat()),
        ("a frame of no known kind", [frame(0xee, 0xff, 0, b"anything"), ask(1, &read(&[]))].concat()),
        ("a header block in pieces", {
            let block = block(&read(&[]));
            [frame(HEADERS, END_STREAM, 1, &block[..7]), frame(CONTINUATION, END_HEADERS, 1, &block[7..])].concat()
        }),
        ("trailers with identity", {
            let body = write(&[], PATIENT);
            let at = body.len() - 9 - PATIENT.len();
            [&body[..at], &frame(DATA, 0, 1, PATIENT.as_bytes()), &ask(1, &[("x-real", "real-1")])].concat()
        }),
    ] {
        let before = world.upstream.seen().len();
        world.upstream.next(Reply::json(PATIENT));
        let came = send(&world, &[preface(&[]), probe].concat()).await;
        assert_eq!(came.status, Some(200), "{name}: {came:?}");
        assert_eq!(world.upstream.seen().len(), before + 1, "{name}");
        let headers = world.upstream.last().headers;
        assert!(
            ["te", "cookie", "trailer", "connection", "x-real"].iter().all(|gone| !headers.contains_key(*gone)),
            "{name}"
        );
    }
    let raw = String::from_utf8_lossy(&world.upstream.raw()).into_owned();
    assert!(!raw.contains("real-1"), "a trailer is no part of FHIR: {raw}");
}
