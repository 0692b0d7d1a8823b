//! The other border: a system with real records, and callers outside who may not know (`untrusted: downstream`). Their tokens are
//! resolved as far as they are permitted, whatever asks for a true identity is refused, and what they get is pseudonyms.
#![cfg(feature = "proxy")]

#[path = "proxy_support/mod.rs"]
mod support;

use bytes::Bytes;
use http::HeaderValue;
use http_body_util::Full;
use support::*;

const OUTSIDE: Setting = Setting {
    upstream_tls: false,
    untrusted: "downstream",
    client_auth: "optional",
    rules: "reversible",
    listener: "",
    route: "",
    upstream: "",
    file: "",
    audit: "audit.jsonl",
};

const RECORD: &str = r#"{"resourceType":"Patient","id":"real-1","text":{"status":"generated","div":"<div xmlns=\"http://www.w3.org/1999/xhtml\">realstory</div>"},"identifier":[{"system":"http://h/mrn","value":"realmrn"}],"name":[{"family":"realfamily"}],"gender":"female","birthDate":"1971-03-04"}"#;
const SECRETS: [&str; 6] = ["real-1", "realstory", "realmrn", "realfamily", "1971-03-04", "realpage"];

fn opened(text: &str) -> Vec<&'static str> {
    SECRETS.into_iter().filter(|secret| text.contains(secret)).collect()
}

/// The record as a caller outside sees it.
async fn seen(world: &World, http: Http, who: Option<&str>) -> (Vec<u8>, serde_json::Value) {
    world.upstream.next(Reply::json(RECORD));
    let got = world.send(http, who, get(http, "/fhir/Patient?gender=female")).await;
    assert_eq!((got.status.as_u16(), got.complete), (200, true), "{}", got.text());
    assert!(opened(&got.text()).is_empty(), "{}", got.text());
    let value = serde_json::from_slice(&got.body).unwrap();
    (got.body, value)
}

fn put(http: Http, target: &str, body: impl Into<Bytes>) -> http::Request<Full<Bytes>> {
    let builder = request("PUT", target).header("content-type", JSON);
    for_version(http, builder.body(Full::new(body.into())).unwrap())
}

#[tokio::test]
async fn outside_are_pseudonyms_and_inside_is_the_record() {
    for upstream_tls in [false, true] {
        let world = World::with(Setting { upstream_tls, ..OUTSIDE }).await;
        for http in BOTH {
            let (body, value) = seen(&world, http, None).await;
            let (again, _) = seen(&world, http, Some("ward")).await;
            assert_eq!(body, again, "who may have tokens resolved sees pseudonyms like everybody");
            let target = format!("/fhir/Patient/{}", value["id"].as_str().unwrap());

            let before = (world.upstream.seen().len(), world.audit_lines().len());
            for request in [get(http, &target), put(http, &target, body.clone())] {
                let got = world.send(http, None, request).await;
                assert_eq!((got.status.as_u16(), got.code().as_str()), (403, "unresolved-token"), "{}", got.text());
            }
            assert_eq!(before, (world.upstream.seen().len(), world.audit_lines().len()), "nothing was asked");

            world.upstream.next(Reply::json(RECORD).header("last-modified", "Mon, 23 Nov 2026 10:00:00 GMT"));
            let got = world.send(http, Some("ward"), get(http, &target)).await;
            assert_eq!((got.status.as_u16(), &got.body), (200, &body));
            assert!(!got.headers.contains_key("last-modified"));
            assert_eq!(world.upstream.last().target, "/r4/Patient/real-1");
            assert_eq!(world.audit_lines().len(), before.1 + 1, "what was resolved is on record");

            world.upstream.next(Reply::json(RECORD));
            let got = world.send(http, Some("ward"), put(http, &target, body.clone())).await;
            assert_eq!((got.status.as_u16(), &got.body), (200, &body), "{}", got.text());
            let inside = world.upstream.last();
            assert_eq!(inside.target, "/r4/Patient/real-1");
            assert_eq!(String::from_utf8(inside.body).unwrap(), RECORD, "the record comes back byte by byte");
            assert_eq!(world.audit_lines().len(), before.1 + 2, "line and body are one record");
        }
        let audit = world.audit_lines().join("\n");
        assert!(audit.contains("ward") && opened(&audit).is_empty(), "{audit}");
        let log = log::text();
        assert!(log.contains("\"exchange\"") && opened(&log).is_empty(), "what is resolved on its way in is in no log");
    }
}

#[tokio::test]
async fn what_is_not_on_record_is_not_resolved() {
    let world = World::with(Setting { audit: "/dev/full", ..OUTSIDE }).await;
    let (body, value) = seen(&world, Http::One, None).await;
    let target = format!("/fhir/Patient/{}", value["id"].as_str().unwrap());
    let before = world.upstream.seen().len();
    for request in [get(Http::One, &target), put(Http::One, &target, body)] {
        let got = world.send(Http::One, Some("ward"), request).await;
        assert_eq!((got.status.as_u16(), got.code().as_str()), (503, "audit-unwritable"));
    }
    assert_eq!(world.upstream.seen().len(), before);
    seen(&world, Http::One, None).await; // pseudonymizing goes on
}

/// What a caller outside asks for, and what the upstream is asked; `Err`: it is asked nothing.
#[tokio::test]
async fn a_caller_outside_asks_by_pseudonyms_only() {
    let world = World::with(OUTSIDE).await;
    let (_, value) = seen(&world, Http::One, None).await;
    let (id, mrn) = (value["id"].as_str().unwrap(), value["identifier"][0]["value"].as_str().unwrap());
    let family = value["name"][0]["family"].as_str().unwrap();
    let mut altered = id.to_owned();
    altered.replace_range(10..11, if &id[10..11] == "B" { "C" } else { "B" });
    let probes: Vec<(String, Result<&str, &str>)> = vec![
        (format!("Patient/{id}"), Ok("Patient/real-1")),
        (format!("Patient/{id}/_history/2"), Ok("Patient/real-1/_history/2")),
        (format!("Patient?_id={id}"), Ok("Patient?_id=real-1")),
        (format!("Observation?patient={id}"), Ok("Observation?patient=real-1")),
        (format!("Observation?subject=Patient/{id}&_count=5"), Ok("Observation?subject=Patient/real-1&_count=5")),
        (format!("Patient?identifier=http://h/mrn%7C{mrn}"), Ok("Patient?identifier=http://h/mrn|realmrn")),
        (format!("Patient?identifier={mrn}"), Ok("Patient?identifier=realmrn")),
        ("Patient?gender=female".into(), Ok("Patient?gender=female")),
        ("Patient?_sort=gender".into(), Ok("Patient?_sort=gender")),
        ("metadata".into(), Ok("metadata")),
        // True identities: yes or no would tell.
        ("Patient?identifier=http://h/mrn%7Crealmrn".into(), Err("search-unanswerable")),
        ("Patient?identifier=realmrn".into(), Err("search-unanswerable")),
        ("Patient?name=realfamily".into(), Err("search-unanswerable")),
        ("Patient?family=realfamily".into(), Err("search-unanswerable")),
        ("Patient?birthdate=1971-03-04".into(), Err("search-unanswerable")),
        ("Patient?birthdate=lt1980".into(), Err("search-unanswerable")),
        ("Patient?_sort=birthdate".into(), Err("search-unanswerable")),
        ("Patient?_sort=-family".into(), Err("search-unanswerable")),
        ("Patient?_sort=gender,family".into(), Err("search-unanswerable")),
        ("Patient?_content=realfamily".into(), Err("search-unanswerable")),
        ("Observation?patient.identifier=realmrn".into(), Err("search-unanswerable")),
        ("Observation?subject:identifier=realmrn".into(), Err("search-unanswerable")),
        ("Patient?_has:Observation:patient:code=1".into(), Err("search-unanswerable")),
        ("Observation?date=2015-06-15".into(), Err("search-unanswerable")),
        (format!("Observation?patient={id}&value-string=realstory"), Err("search-unanswerable")),
        // Pseudonyms of something else, or of nobody.
        (format!("Patient/{mrn}"), Err("unresolved-token")),
        (format!("Patient/{altered}"), Err("unresolved-token")),
        (format!("Observation/{id}"), Err("unresolved-token")),
        (format!("Patient?identifier=http://h/mrn%7C{id}"), Err("unresolved-token")),
        (format!("Patient?family={family}"), Err("search-unanswerable")),
        // What would go where nobody rewrites it.
        ("Patient/$export".into(), Err("operation-refused")),
        ("$export".into(), Err("operation-refused")),
        (format!("Patient/{id}/$everything"), Err("operation-refused")),
        ("Subscription".into(), Err("operation-refused")),
        ("Subscription/1".into(), Err("operation-refused")),
        ("Subscription/1/$status".into(), Err("operation-refused")),
        ("_history".into(), Err("operation-refused")),
        ("Evil/1".into(), Err("bad-url")),
    ];
    for http in BOTH {
        for (target, expected) in &probes {
            let before = world.upstream.seen().len();
            world.upstream.next(Reply::json(r#"{"resourceType":"Patient","active":true}"#));
            let got = world.send(http, Some("ward"), get(http, &format!("/fhir/{target}"))).await;
            let asked = world.upstream.seen()[before..].first().map(|seen| seen.target.clone());
            match expected {
                Ok(inside) => {
                    assert_eq!(got.status, 200, "{target}: {}", got.text());
                    assert_eq!(asked.as_deref(), Some(format!("/r4/{inside}").as_str()), "{target}");
                }
                Err(code) => {
                    assert_eq!((got.code().as_str(), asked), (*code, None), "{target}");
                    world.upstream.forget();
                }
            }
        }
        // An id that is no token is somebody's own: it can meet nobody's record.
        world.upstream.next(Reply::json(r#"{"resourceType":"Patient","active":true}"#));
        let got = world.send(http, Some("ward"), get(http, "/fhir/Patient/real-1")).await;
        let asked = world.upstream.last().target;
        assert!(got.status == 200 && asked.starts_with("/r4/Patient/Xj") && asked.ends_with("real-1"), "{asked}");
    }
}

#[tokio::test]
async fn bodies_from_outside_are_new_data_and_ask_nothing() {
    let world = World::with(OUTSIDE).await;
    let (_, value) = seen(&world, Http::One, None).await;
    let word = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let (id, mrn, family) =
        (word(&value["id"]), word(&value["identifier"][0]["value"]), word(&value["name"][0]["family"]));
    let entry =
        |request: &str| format!(r#"{{"resourceType":"Bundle","type":"batch","entry":[{{"request":{request}}}]}}"#);
    let of = |reference: &str| {
        format!(
            r#"{{"resourceType":"Observation","status":"final","code":{{"text":"x"}},"subject":{{"reference":"{reference}"}}}}"#
        )
    };
    let probes: Vec<(&str, String, Result<&str, &str>)> = vec![
        ("Observation", of(&format!("Patient/{id}")), Ok(r#""Patient/real-1""#)),
        ("Observation", of(&format!("Patient?identifier=http://h/mrn|{mrn}")), Ok("realmrn")),
        ("Patient", format!(r#"{{"resourceType":"Patient","name":[{{"family":"{family}"}}]}}"#), Ok("realfamily")),
        ("Patient", r#"{"resourceType":"Patient","name":[{"family":"Newman"}]}"#.into(), Ok("Newman")),
        ("", entry(&format!(r#"{{"method":"GET","url":"Patient/{id}"}}"#)), Ok("Patient/real-1")),
        ("Observation", of("Patient/real-1"), Ok("Patient/Xj")),
        ("Observation", of("Patient?identifier=http://h/mrn|realmrn"), Err("search-unanswerable")),
        ("Observation", of("Patient?name=realfamily"), Err("search-unanswerable")),
        ("Observation", of(&format!("Patient/{mrn}")), Err("unresolved-token")),
        ("Observation", of("anything else"), Err("bad-reference")),
        ("Patient", format!(r#"{{"resourceType":"Patient","name":[{{"family":"{id}"}}]}}"#), Err("unresolved-token")),
        ("Patient", format!(r#"{{"resourceType":"Patient","id":"{family}"}}"#), Err("unresolved-token")),
        ("Patient", r#"{"resourceType":"Patient","meta":{"tag":[{"system":"urn:cryptonym:seal","code":"x"}]},"birthDate":"1970-01-01"}"#.into(), Err("unresolved-token")),
        ("Patient", r#"{"resourceType":"Patient","Name":[]}"#.into(), Err("key-case")),
        ("Patient", r#"{"resourceType":"Patient","evil":1}"#.into(), Err("unknown-element")),
        ("Patient", r#"{"resourceType":"Evil"}"#.into(), Err("unknown-type")),
        ("Patient", r#"[1]"#.into(), Err("bad-json")),
        ("", entry(r#"{"method":"GET","url":"Patient?name=realfamily"}"#), Err("search-unanswerable")),
        ("", entry(r#"{"method":"GET","url":"Patient?identifier=realmrn"}"#), Err("search-unanswerable")),
        ("", entry(r#"{"method":"GET","url":"Patient/$export"}"#), Err("operation-refused")),
        ("", entry(r#"{"method":"POST","url":"Patient","ifNoneExist":"identifier=http://h/mrn|realmrn"}"#), Err("search-unanswerable")),
        ("", entry(r#"{"method":"POST","url":"Patient","ifNoneExist":"name=realfamily"}"#), Err("search-unanswerable")),
        ("", r#"{"resourceType":"Bundle","type":"batch","entry":[{"resource":{"resourceType":"Subscription","status":"requested","criteria":"Patient?","reason":"x","channel":{"type":"rest-hook","endpoint":"https://evil.example"}},"request":{"method":"POST","url":"Subscription"}}]}"#.into(), Err("operation-refused")),
        ("Subscription", r#"{"resourceType":"Subscription","status":"requested"}"#.into(), Err("operation-refused")),
    ];
    for http in BOTH {
        for (target, body, expected) in &probes {
            let before = world.upstream.seen().len();
            world.upstream.next(Reply::json(r#"{"resourceType":"Patient","active":true}"#));
            let got = world.send(http, Some("ward"), post(http, &format!("/fhir/{target}"), JSON, body.clone())).await;
            let inside =
                world.upstream.seen()[before..].first().map(|seen| String::from_utf8(seen.body.clone()).unwrap());
            match expected {
                Ok(part) => assert!(
                    inside.as_ref().is_some_and(|inside| inside.contains(part)),
                    "{body}: {} {inside:?}",
                    got.text()
                ),
                Err(code) => {
                    assert!(got.status.is_client_error(), "{body}: {}", got.status);
                    assert_eq!((got.code().as_str(), inside), (*code, None), "{body}");
                    world.upstream.forget();
                }
            }
        }
        for (condition, expected) in [
            (format!("identifier=http://h/mrn|{mrn}"), Ok("realmrn")),
            ("identifier=http://h/mrn|realmrn".into(), Err("search-unanswerable")),
            ("name=realfamily".into(), Err("search-unanswerable")),
        ] {
            let mut request = post(http, "/fhir/Patient", JSON, r#"{"resourceType":"Patient","active":true}"#);
            request.headers_mut().insert("if-none-exist", HeaderValue::from_str(&condition).unwrap());
            let got = world.send(http, Some("ward"), request).await;
            match expected {
                Ok(part) => assert!(world.upstream.last().headers["if-none-exist"].to_str().unwrap().contains(part)),
                Err(code) => assert_eq!(got.code(), code, "{condition}"),
            }
        }
    }
}

#[tokio::test]
async fn a_link_serves_the_caller_it_was_given_to() {
    let world = World::with(OUTSIDE).await;
    let page = format!("{}/Patient?page=realpage", world.upstream_base());
    let bundle = format!(
        r#"{{"resourceType":"Bundle","type":"searchset","link":[{{"relation":"next","url":"{page}"}},{{"relation":"self","url":"https://elsewhere.example/realpage"}}],"entry":[{{"fullUrl":"{}/Patient/real-1","resource":{RECORD}}}]}}"#,
        world.upstream_base()
    );
    for http in BOTH {
        for who in [None, Some("ward")] {
            world.upstream.next(Reply::json(bundle.clone()));
            let got = world.send(http, who, get(http, "/fhir/Patient")).await;
            assert!(got.status == 200 && opened(&got.text()).is_empty(), "{}", got.text());
            assert!(!got.text().contains("elsewhere.example") && !got.text().contains("/r4"), "{}", got.text());
            let shown: serde_json::Value = serde_json::from_slice(&got.body).unwrap();
            assert!(shown["entry"][0]["fullUrl"].as_str().unwrap().starts_with(PUBLIC_BASE));
            let link = shown["link"][0]["url"].as_str().unwrap().strip_prefix("https://localhost:8443").unwrap();
            for other in [None, Some("ward"), Some("stranger")] {
                let before = world.upstream.seen().len();
                world.upstream.next(Reply::json(RECORD));
                let got = world.send(http, other, get(http, link)).await;
                let may = who == other || (who.is_none() && other == Some("stranger")); // nobody in particular
                if may {
                    assert_eq!(world.upstream.last().target, "/r4/Patient?page=realpage", "{}", got.text());
                } else {
                    assert_eq!((got.code().as_str(), world.upstream.seen().len()), ("look-alike", before));
                    world.upstream.forget();
                }
            }
        }
        let location = format!("{}/Patient/real-1/_history/1", world.upstream_base());
        world.upstream.next(Reply::json("").status(201).header("location", &location));
        let got = world
            .send(http, None, post(http, "/fhir/Patient", JSON, r#"{"resourceType":"Patient","active":true}"#))
            .await;
        let shown = got.header("location").unwrap();
        assert!(shown.starts_with(PUBLIC_BASE) && opened(shown).is_empty(), "{shown}");
        world.upstream.next(Reply::json("").status(201).header("location", "https://elsewhere.example/Patient/real-1"));
        let got = world
            .send(http, None, post(http, "/fhir/Patient", JSON, r#"{"resourceType":"Patient","active":true}"#))
            .await;
        assert!(got.status == 502 && opened(&got.text()).is_empty(), "{}", got.text());
    }
}

#[tokio::test]
async fn answers_that_are_not_understood_stay_inside() {
    let world = World::with(OUTSIDE).await;
    for http in BOTH {
        for reply in [
            Reply::json("<html>realfamily</html>").header("content-type", "text/html"),
            Reply::json(r#"{"name":"realfamily"}"#),
            Reply::json(r#"{"resourceType":"Evil","name":"realfamily"}"#),
            Reply::json(r#"{"resourceType":"Patient","realfamily":1}"#),
            Reply::json(&RECORD.as_bytes()[..RECORD.len() - 1]),
            Reply::json(RECORD).header("content-encoding", "gzip"),
        ] {
            world.upstream.next(reply);
            let got = world.send(http, Some("ward"), get(http, "/fhir/Patient?gender=female")).await;
            assert_eq!(got.status, 502, "{}", got.text());
            assert!(opened(&got.text()).is_empty(), "{}", got.text());
        }
        world.upstream.next(
            Reply::json(RECORD)
                .header("set-cookie", "n=realfamily")
                .header("warning", "realmrn")
                .header("x-patient", "real-1")
                .header("etag", "W/\"3\""),
        );
        let got = world.send(http, None, get(http, "/fhir/Patient?gender=female")).await;
        assert!(opened(&format!("{:?}{}", got.headers, got.text())).is_empty(), "{:?}", got.headers);
    }
}

#[tokio::test]
async fn updates_from_outside_are_refused_where_rules_lose_data() {
    for (route, status) in [("    lossy_update: refuse", 403), ("    lossy_update: allow", 200)] {
        let world = World::with(Setting { rules: "lossy", route, ..OUTSIDE }).await;
        let got = world
            .send(
                Http::One,
                Some("ward"),
                put(Http::One, "/fhir/Patient/own-1", r#"{"resourceType":"Patient","id":"own-1"}"#),
            )
            .await;
        assert_eq!(got.status.as_u16(), status, "{}", got.text());
        let bundle = r#"{"resourceType":"Bundle","type":"batch","entry":[{"resource":{"resourceType":"Patient","id":"own-1"},"request":{"method":"PUT","url":"Patient/own-1"}}]}"#;
        let got = world.send(Http::One, Some("ward"), post(Http::One, "/fhir", JSON, bundle)).await;
        assert_eq!(got.status.as_u16(), status, "{}", got.text());
    }
}

/// A hospital, a wire of pseudonyms, and a hospital: what goes out by one border comes in by the other.
#[tokio::test]
async fn two_borders_with_one_key_are_a_wire_of_pseudonyms() {
    let inner = World::with(OUTSIDE).await;
    let pki = Pki::new();
    for file in std::fs::read_dir(&inner.pki.folder)
        .unwrap()
        .flatten()
        .filter(|file| file.path().extension().is_some_and(|end| end != "jsonl"))
    {
        std::fs::copy(file.path(), pki.folder.join(file.file_name())).unwrap();
    }
    let setting = Setting {
        upstream_tls: true,
        upstream: "tls: {ca: ca.pem, cert: ward.pem, key: ward.key}",
        ..Setting::default()
    };
    let text = configuration(&setting, inner.proxy.addresses[0]).replace("/r4", "/fhir");
    let proxy = cryptonym::proxy::serve(parse(&text, &pki.folder).unwrap(), std::future::pending()).await.unwrap();
    let upstream = Upstream::start(&pki, false).await;
    let outer = World { pki, upstream, proxy };
    for http in BOTH {
        let got = outer.send(http, Some("ward"), post(http, "/fhir/Patient", JSON, RECORD)).await;
        assert_eq!((got.status.as_u16(), got.text().as_str()), (200, RECORD));
        assert_eq!(String::from_utf8(inner.upstream.last().body).unwrap(), RECORD);
        let got = outer.send(http, None, get(http, "/fhir/Patient/real-1")).await;
        assert_eq!(inner.upstream.last().target, "/r4/Patient/real-1");
        assert!(got.status == 200 && opened(&got.text()).is_empty(), "{}", got.text());
    }
}

#[test]
fn what_no_caller_outside_could_use_is_a_mistake() {
    let pki = Pki::new();
    let nowhere = ([127, 0, 0, 1], 1).into();
    for (rules, route, word) in
        [("plain", "    lossy_update: allow", "format: json"), ("reversible", "    overflow: hash", "overflow: hash")]
    {
        let text = configuration(&Setting { rules, route, ..OUTSIDE }, nowhere);
        let Err(mistakes) = parse(&text, &pki.folder) else { panic!("{word} was taken") };
        assert!(mistakes.iter().any(|mistake| mistake.what.contains(word)), "{mistakes:?}");
    }
}
