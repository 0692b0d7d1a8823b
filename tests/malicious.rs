//! An upstream that means harm: it plants pseudonyms where they should not open, mints look-alikes, and breaks HTTP wherever a
//! client of HTTP can be broken. A caller who may see everything asks; nothing may open but at its place, nothing may cross that was
//! not framed, and the next exchange must go on as if nothing had happened.
//!
//! The upstream is a socket that is sent bytes, so that it can say what no library would. Adding an attack costs a line.
#![cfg(feature = "proxy")]

#[path = "proxy_support/mod.rs"]
mod support;

use cryptonym::encoding::stream::{Encoder, Packing};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use support::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Of two patients, everything that must not open elsewhere. No word is part of another one.
const FIRST: &str = r#"{"resourceType":"Patient","id":"firstid","text":{"status":"generated","div":"<div xmlns=\"http://www.w3.org/1999/xhtml\">firststory</div>"},"identifier":[{"system":"http://h/mrn","value":"firstmrn"}],"name":[{"family":"firstfamily"}],"birthDate":"1971-03-04","contact":[{"name":{"text":"firstcontact"}}],"photo":[{"title":"firsttitle","url":"http://pictures.example/firstphoto"}]}"#;
const SECRETS: [&str; 8] =
    ["firstid", "firststory", "firstmrn", "firstfamily", "firsttitle", "firstphoto", "1971-03-04", "secondfamily"];

// -- the upstream

/// What is sent as the answer to one request.
struct Says {
    bytes: Vec<u8>,
    /// Sent again and again until the other side has enough, after `bytes`.
    forever: Vec<u8>,
    /// Whether the connection stays open afterwards.
    stays: bool,
}

#[derive(Default)]
struct Mind {
    says: Mutex<VecDeque<Says>>,
    /// Body of the last request.
    stored: Mutex<Vec<u8>>,
    /// Every head that came in.
    heads: Mutex<String>,
}

struct Evil {
    world: World,
    mind: Arc<Mind>,
    /// Pseudonyms by the name of what they stand for.
    tokens: BTreeMap<&'static str, String>,
}

async fn serve(mut stream: TcpStream, mind: Arc<Mind>) -> std::io::Result<()> {
    let mut kept: Vec<u8> = Vec::new();
    loop {
        let end = loop {
            match kept.windows(4).position(|four| four == b"\r\n\r\n") {
                Some(end) => break end + 4,
                None if stream.read_buf(&mut kept).await? == 0 => return Ok(()),
                None => {}
            }
        };
        let head = String::from_utf8_lossy(&kept[..end]).to_lowercase();
        let length =
            head.split("content-length: ").nth(1).map_or(0, |rest| rest[..rest.find('\r').unwrap()].parse().unwrap());
        while kept.len() < end + length {
            stream.read_buf(&mut kept).await?;
        }
        mind.heads.lock().unwrap().push_str(&head);
        if length > 0 {
            *mind.stored.lock().unwrap() = kept[end..end + length].to_vec();
        }
        kept.drain(..end + length);
        let says = mind.says.lock().unwrap().pop_front();
        let says = says.unwrap_or_else(|| framed("", &mind.stored.lock().unwrap()));
        stream.write_all(&says.bytes).await?;
        while !says.forever.is_empty() {
            stream.write_all(&says.forever).await?;
        }
        if !says.stays {
            stream.shutdown().await?;
            return Ok(());
        }
    }
}

/// An honest frame around a body, with more header lines.
fn framed(more: &str, body: &[u8]) -> Says {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-type: {JSON}\r\ncontent-length: {}\r\n{more}\r\n", body.len());
    Says { bytes: [head.as_bytes(), body].concat(), forever: vec![], stays: true }
}

/// Bytes as they are, then the end of the connection.
fn wire(bytes: impl Into<Vec<u8>>) -> Says {
    Says { bytes: bytes.into(), forever: vec![], stays: false }
}

impl Evil {
    async fn new(route: &'static str) -> Evil {
        let pki = Pki::new();
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut upstream = Upstream::start(&pki, false).await;
        upstream.address = socket.local_addr().unwrap();
        let mind = Arc::new(Mind::default());
        let shared = mind.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = socket.accept().await {
                tokio::spawn(serve(stream, shared.clone()));
            }
        });
        let world = World::around(
            Setting { route, upstream: "timeouts: {first_byte: 2s, whole: 10s}", ..Setting::default() },
            pki,
            upstream,
        )
        .await;
        let mut evil = Evil { world, mind, tokens: BTreeMap::new() };
        let second = FIRST.replace("first", "second");
        let other = evil.store(&second).await;
        let own = evil.store(FIRST).await;
        let word = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
        let div = word(&own["text"]["div"]);
        evil.tokens = BTreeMap::from([
            ("{ID}", word(&own["id"])),
            ("{STORY}", div[cryptonym::token::find(&div).next().unwrap()].to_owned()),
            ("{MRN}", word(&own["identifier"][0]["value"])),
            ("{FAMILY}", word(&own["name"][0]["family"])),
            ("{TITLE}", word(&own["photo"][0]["title"])),
            ("{PHOTO}", word(&own["photo"][0]["url"])),
            ("{BORN}", word(&own["birthDate"])),
            ("{SEAL}", word(&own["meta"]["tag"][0]["code"])),
            ("{SEAL2}", word(&other["meta"]["tag"][0]["code"])),
            ("{FAMILY2}", word(&other["name"][0]["family"])),
            ("{BASE}", evil.world.upstream_base()),
        ]);
        evil
    }

    /// What the upstream gets to see of a resource.
    async fn store(&self, resource: &str) -> serde_json::Value {
        let got = self.world.send(Http::One, None, post(Http::One, "/fhir/Patient", JSON, resource.to_owned())).await;
        assert_eq!(got.status, 200, "{}", got.text());
        serde_json::from_slice(&self.mind.stored.lock().unwrap()).unwrap()
    }

    fn planted(&self, text: &str) -> String {
        self.tokens.iter().fold(text.to_owned(), |text, (name, token)| text.replace(name, token))
    }

    /// What a caller who may see everything gets when the upstream says this.
    async fn ask(&self, what: &str, http: Http, says: Says) -> Got {
        self.mind.says.lock().unwrap().push_back(says);
        let asked = self.world.send(http, Some("ward"), get(http, "/fhir/Patient/firstid"));
        tokio::time::timeout(Duration::from_secs(30), asked).await.unwrap_or_else(|_| panic!("{what}: it hangs"))
    }

    /// The proxy answers an honest upstream as before, with the answer to this very request.
    async fn goes_on(&self, after: &str) {
        let mark = format!("{}", after.len() + 1000);
        let body = format!(r#"{{"resourceType":"Patient","multipleBirthInteger":{mark}}}"#);
        let got = self.ask(after, Http::One, framed("", body.as_bytes())).await;
        assert!(got.status == 200 && got.text().contains(&mark), "after {after}: {} {}", got.status, got.text());
    }
}

fn opened(text: &str) -> Vec<&'static str> {
    SECRETS.into_iter().filter(|secret| text.contains(secret)).collect()
}

// -- pseudonyms where they do not belong

#[tokio::test]
async fn a_pseudonym_opens_at_its_place_only() {
    let evil = Evil::new("").await;
    let sealed = |date: &str, seals: &str| {
        format!(r#"{{"resourceType":"Patient","id":"{{ID}}","birthDate":"{date}","meta":{{"tag":[{seals}]}}}}"#)
    };
    let seal = |code: &str| format!(r#"{{"system":"urn:cryptonym:seal","code":"{code}"}}"#);
    let in_patient = |member: &str| format!(r#"{{"resourceType":"Patient",{member}}}"#);
    let probes: Vec<(&str, String, &[&str])> = vec![
        ("its place", in_patient(r#""name":[{"family":"{FAMILY}"}]"#), &["firstfamily"]),
        ("its class elsewhere", in_patient(r#""name":[{"text":"{FAMILY}"}]"#), &["firstfamily"]),
        ("a reference of ours", in_patient(r#""link":[{"other":{"reference":"Patient/{ID}"},"type":"seealso"}]"#), &["firstid"]),
        ("swapped between patients", in_patient(r#""id":"{ID}","name":[{"family":"{FAMILY2}"}]"#), &["firstid", "secondfamily"]),
        ("an id as a name", in_patient(r#""name":[{"family":"{ID}"}]"#), &[]),
        ("an id as the id of another type", r#"{"resourceType":"Observation","id":"{ID}"}"#.into(), &[]),
        ("an id in a reference to another type", in_patient(r#""managingOrganization":{"reference":"Organization/{ID}"}"#), &[]),
        ("a name as an id", in_patient(r#""id":"{FAMILY}""#), &[]),
        ("a number as a name", in_patient(r#""name":[{"family":"{MRN}"}]"#), &[]),
        ("a story as a name", in_patient(r#""name":[{"family":"{STORY}"}]"#), &[]),
        ("a title as words about an error", r#"{"resourceType":"OperationOutcome","issue":[{"severity":"error","code":"invalid","diagnostics":"{TITLE}","details":{"text":"{STORY} {FAMILY}"},"expression":["{FAMILY}"],"location":["{MRN}"]}]}"#.into(), &[]),
        ("amid other text", in_patient(r#""name":[{"family":"Dr {FAMILY}"}]"#), &[]),
        ("behind a space", in_patient(r#""name":[{"family":" {FAMILY}"}]"#), &[]),
        ("twice in one text", in_patient(r#""name":[{"family":"{FAMILY}{FAMILY}"}]"#), &[]),
        ("foreign reference", in_patient(r#""link":[{"other":{"reference":"https://evil.example/Patient/{ID}"},"type":"seealso"}]"#), &[]),
        ("foreign reference below a base like ours", in_patient(r#""link":[{"other":{"reference":"{BASE}.evil.example/Patient/{ID}"},"type":"seealso"}]"#), &[]),
        ("foreign conditional reference", in_patient(r#""link":[{"other":{"reference":"https://evil.example/Patient?identifier=http://h/mrn|{MRN}"},"type":"seealso"}]"#), &[]),
        ("foreign picture", in_patient(r#""photo":[{"url":"https://evil.example/{ID}?n={FAMILY}"}]"#), &[]),
        ("foreign picture with a whole URI inside", in_patient(r#""photo":[{"url":"https://evil.example/?u={PHOTO}"}]"#), &[]),
        ("mail with a name", in_patient(r#""photo":[{"url":"mailto:{FAMILY}@evil.example"}]"#), &[]),
        ("URL of an extension", in_patient(r#""extension":[{"url":"https://evil.example/{ID}/{FAMILY}","valueBoolean":true}]"#), &[]),
        ("whole token as URL of an extension", in_patient(r#""extension":[{"url":"{PHOTO}","valueBoolean":true}]"#), &[]),
        ("a system", in_patient(r#""identifier":[{"system":"https://evil.example/{MRN}","value":"1"}]"#), &[]),
        ("a profile", in_patient(r#""meta":{"profile":["https://evil.example/{ID}"]}"#), &[]),
        ("a version", in_patient(r#""meta":{"versionId":"{FAMILY}"}"#), &[]),
        ("a language", in_patient(r#""language":"{FAMILY}""#), &[]),
        ("picture in the narrative", in_patient(r#""text":{"status":"generated","div":"<div xmlns=\"http://www.w3.org/1999/xhtml\"><img src=\"https://evil.example/{STORY}\"/></div>"}"#), &[]),
        ("story beside markup", in_patient(r#""text":{"status":"generated","div":"<div xmlns=\"http://www.w3.org/1999/xhtml\">{STORY}<b>x</b></div>"}"#), &[]),
        ("story with a style", in_patient(r#""text":{"status":"generated","div":"<div xmlns=\"http://www.w3.org/1999/xhtml\" style=\"background:url(https://evil.example/{STORY})\">{STORY}</div>"}"#), &[]),
        ("name in the narrative", in_patient(r#""text":{"status":"generated","div":"<div xmlns=\"http://www.w3.org/1999/xhtml\">{FAMILY}</div>"}"#), &[]),
        ("plain text as a narrative", in_patient(r#""text":{"status":"generated","div":"<div xmlns=\"http://www.w3.org/1999/xhtml\">{TITLE}</div>"}"#), &[]),
        ("a narrative as plain text", in_patient(r#""photo":[{"title":"{STORY}"}]"#), &[]),
        ("binary", in_patient(r#""photo":[{"data":"{TITLE}"}]"#), &[]),
        ("a member name", in_patient(r#""{FAMILY}":"{FAMILY}""#), &[]),
        ("a member name of an extension", in_patient(r#""name":[{"{FAMILY}":{"family":"{FAMILY}"}}]"#), &[]),
        ("an unknown resource", r#"{"resourceType":"Evil","id":"{ID}","family":"{FAMILY}"}"#.into(), &[]),
        ("other JSON", r#"{"id":"{ID}","name":[{"family":"{FAMILY}"}]}"#.into(), &[]),
        ("a list", r#"[{"resourceType":"Patient","id":"{ID}"},"{FAMILY}"]"#.into(), &[]),
        ("a text", r#""{FAMILY}""#.into(), &[]),
        ("links of a bundle", r#"{"resourceType":"Bundle","type":"searchset","link":[{"relation":"next","url":"https://evil.example/?id={ID}&n={FAMILY}"},{"relation":"self","url":"{BASE}/Patient?identifier={MRN}"}]}"#.into(), &[]),
        ("a link that names a file", r#"{"resourceType":"Bundle","type":"searchset","link":[{"relation":"self","url":"{PHOTO}x"}]}"#.into(), &[]),
        ("foreign fullUrl", r#"{"resourceType":"Bundle","type":"searchset","entry":[{"fullUrl":"https://evil.example/Patient/{ID}"}]}"#.into(), &[]),
        ("foreign location", r#"{"resourceType":"Bundle","type":"batch-response","entry":[{"response":{"status":"201","location":"https://evil.example/Patient/{ID}"}}]}"#.into(), &[]),
        ("status and tag of an entry", r#"{"resourceType":"Bundle","type":"batch-response","entry":[{"response":{"status":"{FAMILY}","etag":"{MRN}"}}]}"#.into(), &[]),
        ("parameters", r#"{"resourceType":"Parameters","parameter":[{"name":"{FAMILY}","valueString":"{FAMILY}"},{"name":"x","valueId":"{ID}"}]}"#.into(), &[]),
        ("an altered token", in_patient(r#""name":[{"family":"{FAMILY}A"}]"#), &[]),
        ("a date under its seal", sealed("{BORN}", &seal("{SEAL}")), &["firstid", "1971-03-04"]),
        ("a date without a seal", in_patient(r#""id":"{ID}","birthDate":"{BORN}""#), &["firstid"]),
        ("a date under somebody's seal beside its own", sealed("{BORN}", &[seal("{SEAL2}"), seal("{SEAL}")].join(",")), &["firstid", "1971-03-04"]),
        ("a date under a forged seal", sealed("{BORN}", &seal("{TITLE}")), &["firstid"]),
        ("a date under a name", sealed("{BORN}", &seal("{FAMILY}")), &["firstid"]),
        ("a date of two strangers' seals", sealed("{BORN}", &[seal("{SEAL2}"), seal("{SEAL2}x")].join(",")), &["firstid"]),
    ];
    for http in BOTH {
        for (name, body, expected) in &probes {
            let got = evil.ask(name, http, framed("", evil.planted(body).as_bytes())).await;
            assert!(got.complete && (got.status == 200 || got.status == 502), "{name}: {} {}", got.status, got.text());
            let mut seen = opened(&got.text());
            seen.sort_unstable();
            let mut expected = expected.to_vec();
            expected.sort_unstable();
            assert_eq!(seen, expected, "{name}: {}", got.text());
            assert!(opened(&format!("{:?}", got.headers)).is_empty(), "{name}: {:?}", got.headers);
        }
    }
}

/// Ids that only look like ours: they come back as somebody else's, and never go out again as an id.
#[tokio::test]
async fn look_alikes_are_nobodys_ids() {
    let evil = Evil::new("").await;
    let (id, mut minted) = (evil.tokens["{ID}"].clone(), Vec::new());
    for at in [2, 3, 5, 6, id.len() - 1] {
        let mut other = id.clone().into_bytes();
        other[at] = if other[at] == b'B' { b'C' } else { b'B' };
        minted.push(String::from_utf8(other).unwrap());
    }
    minted.push(id[..id.len() - 1].to_owned());
    minted.push("XjAAAAAAAAAAfirstid".to_owned());
    minted.push("firstid".to_owned());
    for one in &minted {
        let body = format!(r#"{{"resourceType":"Patient","id":"{one}"}}"#);
        let got = evil.ask(one, Http::One, framed("", body.as_bytes())).await;
        assert_eq!(got.status, 200, "{one}: {}", got.text());
        let shown: serde_json::Value = serde_json::from_slice(&got.body).unwrap();
        let shown = shown["id"].as_str().unwrap().to_owned();
        assert_ne!(shown, "firstid", "{one}: the cloud's own id is not the hospital's");
        let before = evil.mind.heads.lock().unwrap().len();
        let again = evil.world.send(Http::One, Some("ward"), get(Http::One, &format!("/fhir/Patient/{shown}"))).await;
        let asked = evil.mind.heads.lock().unwrap()[before..].to_owned();
        match again.status.as_u16() {
            200 => {
                assert!(asked.starts_with(&format!("get /r4/patient/{} http", one.to_lowercase())), "{one}: {asked}")
            }
            422 => assert!(asked.is_empty() && again.code() == "look-alike", "{one}: {asked}"),
            other => panic!("{one}: {other}"),
        }
    }
}

// -- heads

#[tokio::test]
async fn headers_say_nothing_and_lead_nowhere_else() {
    let evil = Evil::new("").await;
    for (name, line, status) in [
        ("tag", "etag: W/\"{ID}\"", 200),
        ("cookie", "set-cookie: a={FAMILY}; domain=evil.example", 200),
        ("warning", "warning: 199 - \"{FAMILY}\"", 200),
        ("link", "link: <https://evil.example/{ID}>; rel=next", 200),
        ("refresh", "refresh: 0; url=https://evil.example/{ID}", 200),
        (
            "policy",
            "content-security-policy-report-only: default-src 'none'; report-uri https://evil.example/{ID}",
            200,
        ),
        (
            "error log",
            "nel: {\"report_to\":\"{ID}\"}\r\nreport-to: {\"endpoints\":[{\"url\":\"https://evil.example/{ID}\"}]}",
            200,
        ),
        ("alternative", "alt-svc: h2=\"evil.example:443\"; ma=86400", 200),
        ("trust", "access-control-allow-origin: *\r\naccess-control-allow-credentials: true", 200),
        ("hop", "keep-alive: {FAMILY}\r\nproxy-authenticate: Basic realm=\"{FAMILY}\"", 200),
        ("encoding that is none", "content-encoding: {FAMILY}", 502),
        ("two encodings", "content-encoding: gzip, gzip", 502),
        ("encoding that lies", "content-encoding: gzip", 502),
        ("encoding that lies: br", "content-encoding: br", 502),
        ("encoding that lies: zstd", "content-encoding: zstd", 502),
        ("encoding that lies: deflate", "content-encoding: deflate", 502),
        ("location elsewhere", "location: https://evil.example/Patient/{ID}", 502),
        ("location elsewhere, no scheme", "location: //evil.example/Patient/{ID}", 502),
        ("location of a script", "location: javascript:alert('{ID}')", 502),
        ("location with a backslash", "location: \\\\evil.example\\{ID}", 502),
        ("location with user information", "location: https://localhost:8443@evil.example/fhir/Patient/{ID}", 502),
        ("location below a base like ours", "location: {BASE}.evil.example/Patient/{ID}", 502),
        ("content-location elsewhere", "content-location: https://evil.example/Patient/{ID}", 502),
        ("two locations", "location: {BASE}/Patient/1\r\nlocation: https://evil.example/Patient/{ID}", 502),
        ("two types", "content-type: text/html", 502),
        ("two lengths", "content-length: 1", 502),
        ("length and chunks", "transfer-encoding: chunked", 502),
        ("name with a space", "x y: {FAMILY}", 502),
        ("folded", "x: y\r\n {FAMILY}", 200),
        ("no colon", "{FAMILY}", 502),
        ("a digest", "content-digest: sha-256=:{FAMILY}:", 200),
        ("trailers announced", "trailer: x-real", 200),
    ] {
        for http in BOTH {
            let body = r#"{"resourceType":"Patient","active":true}"#;
            let got = evil
                .ask(
                    name,
                    http,
                    Says { stays: false, ..framed(&format!("{}\r\n", evil.planted(line)), body.as_bytes()) },
                )
                .await;
            assert!(
                got.status == status || (status == 200 && got.status == 502),
                "{name}: {} {}",
                got.status,
                got.text()
            );
            let all = format!("{:?} {}", got.headers, got.text());
            assert!(opened(&all).is_empty() && !all.contains("evil.example"), "{name}: {all}");
            assert!(name == "tag" || !all.contains(&evil.tokens["{ID}"]), "{name}: {all}");
            assert!(!all.contains(&evil.tokens["{FAMILY}"]), "{name}: {all}");
            for gone in
                ["set-cookie", "link", "refresh", "alt-svc", "access-control-allow-origin", "trailer", "keep-alive"]
            {
                assert!(!got.headers.contains_key(gone), "{name}: {gone}");
            }
        }
        evil.goes_on(name).await;
    }
}

// -- frames

#[tokio::test]
async fn an_answer_that_is_not_framed_is_none() {
    let evil = Evil::new("").await;
    let body = evil.planted(r#"{"resourceType":"Patient","name":[{"family":"{FAMILY}"}]}"#);
    let n = body.len();
    let head = format!("HTTP/1.1 200 OK\r\ncontent-type: {JSON}\r\n");
    let chunked = format!("{head}transfer-encoding: chunked\r\n\r\n");
    let hex = format!("{n:x}\r\n{body}\r\n");
    let html = format!("<html><body>{}</body></html>", evil.tokens["{FAMILY}"]);
    let bomb = Encoder::new(Packing::Gzip).unwrap().finish(&vec![b'\n'; 64 << 20]).unwrap();
    let bombed = |kind: &str| {
        let head = format!("{head}content-encoding: {kind}\r\ncontent-length: {}\r\n\r\n", bomb.len());
        Says { bytes: [head.as_bytes(), &bomb].concat(), forever: vec![], stays: true }
    };
    let typed = |kind: &str| {
        wire(format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n{html}", html.len()))
    };
    let status =
        |line: &str| wire(format!("HTTP/1.1 {line}\r\ncontent-type: {JSON}\r\ncontent-length: {n}\r\n\r\n{body}"));
    let forever = |first: &str, again: &str| Says { bytes: first.into(), forever: again.into(), stays: false };
    let page = |line: String| format!("{head}{line}content-length: {n}\r\n\r\n{body}");
    // What comes, and what the caller gets: a refusal, or the honest part of it.
    let probes: Vec<(&str, Says, &[u16])> = vec![
        ("longer length than body", wire(format!("{head}content-length: {}\r\n\r\n{body}", n + 1)), &[502]),
        ("length that is no number", wire(format!("{head}content-length: x{n}\r\n\r\n{body}")), &[502]),
        ("negative length", wire(format!("{head}content-length: -1\r\n\r\n{body}")), &[502]),
        ("length with a sign", wire(format!("{head}content-length: +{n}\r\n\r\n{body}")), &[502]),
        ("length beyond numbers", wire(format!("{head}content-length: 99999999999999999999\r\n\r\n{body}")), &[502]),
        ("two lengths", wire(format!("{head}content-length: {n}\r\ncontent-length: 5\r\n\r\n{body}")), &[502]),
        ("list of lengths", wire(format!("{head}content-length: {n}, 5\r\n\r\n{body}")), &[502]),
        ("no length", wire(format!("{head}\r\n{body}")), &[502]),
        ("http/1.0 without length", wire(format!("HTTP/1.0 200 OK\r\ncontent-type: {JSON}\r\n\r\n{body}")), &[502]),
        (
            "http/1.0 with chunks",
            wire(format!(
                "HTTP/1.0 200 OK\r\ncontent-type: {JSON}\r\ntransfer-encoding: chunked\r\n\r\n{hex}0\r\n\r\n"
            )),
            &[502],
        ),
        ("chunks cut", wire(format!("{chunked}{hex}")), &[502]),
        ("chunk cut", wire(format!("{chunked}{:x}\r\n{body}", n + 5)), &[502]),
        ("chunk size beyond numbers", wire(format!("{chunked}ffffffffffffffffff\r\n{body}\r\n0\r\n\r\n")), &[502]),
        ("chunk size that is none", wire(format!("{chunked}zz\r\n{body}\r\n0\r\n\r\n")), &[502]),
        ("chunk without its end", wire(format!("{chunked}{n:x}\r\n{body}0\r\n\r\n")), &[502]),
        ("chunk extension without end", forever(&format!("{chunked}1;"), &"x".repeat(65536)), &[502]),
        (
            "trailer with identity",
            wire(format!("{chunked}{hex}0\r\nx-name: {}\r\n\r\n", evil.tokens["{FAMILY}"])),
            &[200],
        ),
        ("trailers without end", forever(&format!("{chunked}{hex}0\r\n"), &"x-a: b\r\n".repeat(1000)), &[502]),
        ("coding beside chunks", wire(format!("{head}transfer-encoding: gzip, chunked\r\n\r\n{hex}0\r\n\r\n")), &[502]),
        (
            "chunks twice",
            wire(format!("{head}transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n{hex}0\r\n\r\n")),
            &[502],
        ),
        ("chunks that are none", wire(format!("{head}transfer-encoding: xchunked\r\n\r\n{hex}0\r\n\r\n")), &[502]),
        ("a second answer", wire(format!("{0}{0}", page(String::new()))), &[200, 502]),
        (
            "a second answer, kept open",
            Says {
                stays: true,
                ..wire(format!(
                    "{0}HTTP/1.1 200 OK\r\ncontent-type: {JSON}\r\ncontent-length: 40\r\n\r\n{{\"resourceType\":\"Patient\",\"active\":true}}",
                    page(String::new())
                ))
            },
            &[200, 502],
        ),
        (
            "shorter length than body",
            Says {
                stays: true,
                ..wire(format!("{head}content-length: {}\r\n\r\n{body}HTTP/1.1 200 OK\r\n\r\n", n - 1))
            },
            &[502],
        ),
        (
            "a body where none belongs",
            Says { stays: true, ..wire(format!("HTTP/1.1 204 No Content\r\n\r\n{}", page(String::new()))) },
            &[204, 502],
        ),
        ("not modified, unasked", status("304 Not Modified"), &[502]),
        ("part of it", status("206 Partial Content"), &[502]),
        (
            "another protocol",
            wire(format!("HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n{body}")),
            &[502],
        ),
        (
            "hints first",
            wire(format!(
                "{}{}",
                "HTTP/1.1 103 Early Hints\r\nlink: <https://evil.example/>\r\n\r\n".repeat(20),
                page(String::new())
            )),
            &[200, 502],
        ),
        ("hints without end", forever("", &"HTTP/1.1 100 Continue\r\n\r\n".repeat(100)), &[502, 504]),
        ("status that is none", status("999 Evil"), &[502]),
        ("status of two digits", status("20 OK"), &[502]),
        ("no http", wire(body.clone()), &[502]),
        ("http/2 preface", wire("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), &[502]),
        ("another version", wire(page(String::new()).replacen("HTTP/1.1", "HTTP/1.7", 1)), &[502]),
        // What breaks before an answer is asked for once more, if it was a read: the second answer is the honest one.
        ("nothing", wire(""), &[200, 502]),
        ("half a head", wire(head.as_bytes()), &[200, 502]),
        ("head too large", wire(page(format!("x: {}\r\n", "x".repeat(1 << 20)))), &[502]),
        ("headers too many", wire(page("x: y\r\n".repeat(5000))), &[502]),
        (
            "head without end",
            forever(&head, &"x: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n".repeat(1000)),
            &[502],
        ),
        ("carriage return in a value", wire(page("x: y\rz: w\r\n".into())), &[502]),
        ("null in a value", wire(page("x: y\0z\r\n".into())), &[502]),
        ("a page of html", typed("text/html"), &[502]),
        ("html with two types", typed("application/fhir+json, text/html"), &[502]),
        ("html as json", typed(JSON), &[502]),
        ("another charset", typed("application/fhir+json; charset=utf-7"), &[502]),
        ("a multipart", typed("multipart/mixed; boundary=x"), &[502]),
        ("no type", wire(format!("HTTP/1.1 200 OK\r\ncontent-length: {n}\r\n\r\n{body}")), &[502]),
        ("a bomb", bombed("gzip"), &[502]),
        ("a bomb in the wrong wrapper", bombed("zstd"), &[502]),
        ("not UTF-8", framed("", b"{\"resourceType\":\"Patient\",\"language\":\"\xff\"}"), &[502]),
        ("a byte order mark", framed("", b"\xef\xbb\xbf{\"resourceType\":\"Patient\"}"), &[502]),
        ("json cut", framed("", &body.as_bytes()[..n - 1]), &[502]),
        ("json and more", framed("", format!("{body}{body}").as_bytes()), &[502]),
        ("one name twice", framed("", body.replacen('{', "{\"id\":\"a\",\"id\":\"b\",", 1).as_bytes()), &[502]),
        (
            "nested without end",
            framed("", format!("{{\"resourceType\":\"Patient\",\"x\":{}", "[".repeat(1 << 20)).as_bytes()),
            &[502],
        ),
    ];
    let honest = body.replace(&evil.tokens["{FAMILY}"], "firstfamily");
    for (name, says, statuses) in probes {
        let got = evil.ask(name, Http::Two, says).await;
        assert!(statuses.contains(&got.status.as_u16()), "{name}: {} {}", got.status, got.text());
        match got.status.as_u16() {
            200 if ["nothing", "half a head"].contains(&name) => assert!(got.text().contains("firstfamily"), "{name}"),
            200 => assert_eq!(got.text(), honest, "{name}"),
            204 => assert!(got.body.is_empty(), "{name}"),
            _ => assert!(opened(&got.text()).is_empty() && got.code() != "", "{name}: {}", got.text()),
        }
        evil.goes_on(name).await;
    }
}

// -- compression

/// A guess beside a name: its length tells nothing if nothing is compressed.
#[tokio::test]
async fn what_is_revealed_is_never_compressed() {
    let evil = Evil::new("    encodings: [zstd, gzip]").await;
    for http in BOTH {
        let mut lengths = std::collections::BTreeSet::new();
        for guess in ["firstfamily", "wrongfamily", "firzzzzzzzz"] {
            let guesses = format!(r#"{{"url":"https://evil.example/","valueString":"{guess}"}}"#);
            let body = format!(
                r#"{{"resourceType":"Patient","extension":[{}],"name":[{{"family":"{}"}}]}}"#,
                vec![guesses; 60].join(","),
                evil.tokens["{FAMILY}"]
            );
            let packed = Encoder::new(Packing::Gzip).unwrap().finish(body.as_bytes()).unwrap();
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: {JSON}\r\ncontent-encoding: gzip\r\ncontent-length: {}\r\n\r\n",
                packed.len()
            );
            evil.mind.says.lock().unwrap().push_back(Says { stays: true, ..wire([head.as_bytes(), &packed].concat()) });
            let mut request = get(http, "/fhir/Patient/firstid");
            request.headers_mut().insert("accept-encoding", http::HeaderValue::from_static("gzip, zstd, br, deflate"));
            let got = evil.world.send(http, Some("ward"), request).await;
            assert_eq!((got.status.as_u16(), got.header("content-encoding")), (200, None), "{}", got.text());
            assert!(got.text().contains(r#""family":"firstfamily""#), "{}", got.text());
            lengths.insert(got.body.len());
        }
        assert_eq!(lengths.len(), 1, "{lengths:?}");
    }
}
