//! The demo's cloud on its own, through a real TLS client: it must be an ordinary FHIR server, or what the demo and the
//! round-trip tests prove with it is worth nothing.
#![cfg(all(feature = "cli", feature = "proxy"))]

use cryptonym::cli::certs::{Authority, THIS_MACHINE};
use cryptonym::cli::demo::client::{Client, Reply, server_tls};
use cryptonym::cli::demo::cloud::{Cloud, Record};
use serde_json::{Value, json};
use std::future::Future;

struct World {
    cloud: Cloud,
    client: Client,
}

impl World {
    async fn send(&self, method: &str, target: &str, body: &str) -> Reply {
        self.with(method, target, &[], body).await
    }

    async fn with(&self, method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> Reply {
        self.client
            .send(method, &format!("{}/{target}", self.cloud.base), headers, body)
            .await
            .expect("the cloud answers")
    }

    async fn get(&self, target: &str) -> Value {
        let reply = self.send("GET", target, "").await;
        assert_eq!(reply.status, 200, "{target}: {}", reply.body);
        reply.json()
    }

    /// Ids of the matches, in order.
    async fn find(&self, target: &str) -> Vec<String> {
        ids(&self.get(target).await)
    }
}

fn ids(bundle: &Value) -> Vec<String> {
    let entries = bundle["entry"].as_array().cloned().unwrap_or_default();
    entries.iter().map(|entry| entry["resource"]["id"].as_str().unwrap_or("?").to_owned()).collect()
}

fn in_the_cloud<F: Future<Output = ()>>(test: impl FnOnce(World) -> F) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let authority = Authority::new("test authority").unwrap();
        let tls = server_tls(&authority.server(&THIS_MACHINE).unwrap()).unwrap();
        let cloud = Cloud::start(tls, Record::Memory).await.unwrap();
        let client = Client::new(&authority.certificate(), None).unwrap();
        test(World { cloud, client }).await;
    });
}

#[track_caller]
fn refused(reply: &Reply, status: u16, code: &str) {
    assert_eq!(reply.status, status, "{}", reply.body);
    assert_eq!(reply.json()["resourceType"], "OperationOutcome");
    assert_eq!(reply.json()["issue"][0]["code"], code);
}

#[test]
fn a_resource_lives_from_create_to_delete_and_keeps_its_spelling() {
    in_the_cloud(|world| async move {
        let sent = r#"{ "resourceType":"Observation", "valueQuantity":{"value":1.50,"unit":"\u006dg"},"x":1E2 }"#;
        let created = world.send("POST", "Observation", sent).await;
        assert_eq!(created.status, 201);
        assert_eq!(created.header("location").unwrap(), format!("{}/Observation/1/_history/1", world.cloud.base));
        assert_eq!(created.header("etag"), Some("W/\"1\""));
        assert!(created.header("last-modified").is_some_and(|date| date.ends_with(" GMT")));

        let read = world.send("GET", "Observation/1", "").await;
        let (stamp, rest) = read.body.split_at(read.body.find(r#" "resourceType""#).unwrap());
        assert_eq!(rest, &sent[1..], "only id and meta are added");
        assert!(stamp.starts_with(r#"{"id":"1","meta":{"versionId":"1","lastUpdated":"20"#), "{stamp}");

        let update = r#"{"resourceType":"Observation","id":"1","valueQuantity":{"value":2.00}}"#;
        let updated = world.send("PUT", "Observation/1", update).await;
        assert_eq!((updated.status, updated.header("etag")), (200, Some("W/\"2\"")));
        assert!(world.send("GET", "Observation/1", "").await.body.contains(r#""value":2.00"#));
        assert!(world.send("GET", "Observation/1/_history/1", "").await.body.contains(r#""value":1.50"#));

        let stale = world.with("PUT", "Observation/1", &[("if-match", "W/\"1\"")], update).await;
        refused(&stale, 412, "conflict");

        assert_eq!(world.send("DELETE", "Observation/1", "").await.status, 204);
        refused(&world.send("GET", "Observation/1", "").await, 410, "deleted");
        assert_eq!(world.find("Observation").await, [""; 0]);
        let history = world.get("Observation/1/_history").await;
        assert_eq!(history["total"], 3);
        assert_eq!(history["entry"][0]["request"]["method"], "DELETE");
        assert!(history["entry"][0].get("resource").is_none());
        assert_eq!(history["entry"][2]["resource"]["meta"]["versionId"], "1");
    });
}

#[test]
fn a_client_may_name_a_resource_and_search_for_it() {
    in_the_cloud(|world| async move {
        let patient = |id: &str, mrn: &str| {
            json!({ "resourceType": "Patient", "id": id, "identifier": [{ "system": "urn:mrn", "value": mrn }] })
                .to_string()
        };
        assert_eq!(world.send("PUT", "Patient/a", &patient("a", "M 1")).await.status, 201);
        assert_eq!(world.send("PUT", "Patient/b", &patient("b", "M2")).await.status, 201);
        assert_eq!(world.send("PUT", "Patient/b", &patient("b", "M3")).await.status, 200);
        let visit = json!({ "resourceType": "Encounter", "subject": { "reference": "Patient/a" },
            "participant": [{ "individual": { "reference": "Practitioner/dr" } }], "serviceProvider": { "reference": "Organization/o" } });
        world.send("PUT", "Encounter/e", &json!({ "id": "e", "resourceType": "Encounter" }).to_string()).await;
        world.send("POST", "Encounter", &visit.to_string()).await;

        for (target, expected) in [
            ("Patient?_id=a", &["a"][..]),
            ("Patient?_id=b,a,nobody", &["a", "b"]),
            ("Patient?identifier=urn:mrn%7CM%201", &["a"]),
            ("Patient?identifier=urn:mrn|M+1", &["a"]),
            ("Patient?identifier=M3", &["b"]),
            ("Patient?identifier=M2", &[]),
            ("Patient?identifier=other|M3", &[]),
            ("Patient?identifier=urn:mrn|", &["a", "b"]),
            ("Patient?identifier=M3&_id=a", &[]),
            ("Encounter?patient=a", &["1"]),
            ("Encounter?subject=Patient/a", &["1"]),
            ("Encounter?subject:Patient=a", &["1"]),
            ("Encounter?participant=Practitioner/dr", &["1"]),
            ("Encounter?practitioner=Practitioner/dr", &["1"]),
            ("Encounter?service-provider=Organization/o", &["1"]),
            ("Encounter?patient=b", &[]),
        ] {
            assert_eq!(world.find(target).await, expected, "{target}");
        }
        let absolute = format!("Encounter?subject={}/Patient/a", world.cloud.base);
        assert_eq!(world.find(&absolute).await, ["1"]);

        let form = [("content-type", "application/x-www-form-urlencoded")];
        let posted = world.with("POST", "Patient/_search?_id=a,b", &form, "identifier=urn%3Amrn%7CM+1").await;
        assert_eq!(ids(&posted.json()), ["a"]);
        let entry = &posted.json()["entry"][0];
        assert_eq!(entry["fullUrl"], format!("{}/Patient/a", world.cloud.base));
        assert_eq!(entry["search"]["mode"], "match");
    });
}

#[test]
fn a_conditional_create_happens_once() {
    in_the_cloud(|world| async move {
        let body = r#"{"resourceType":"Patient","identifier":[{"system":"s","value":"v"}]}"#;
        let condition = [("if-none-exist", "identifier=s|v")];
        assert_eq!(world.with("POST", "Patient", &condition, body).await.status, 201);
        let again = world.with("POST", "Patient", &condition, body).await;
        assert_eq!((again.status, again.header("etag")), (200, Some("W/\"1\"")));
        world.send("POST", "Patient", body).await;
        refused(&world.with("POST", "Patient", &condition, body).await, 412, "multiple-matches");
    });
}

#[test]
fn pages_lead_to_every_match_once() {
    in_the_cloud(|world| async move {
        for _ in 0..7 {
            world.send("POST", "Patient", r#"{"resourceType":"Patient"}"#).await;
        }
        let mut found = Vec::new();
        let mut next = Some(format!("{}/Patient?_count=3", world.cloud.base));
        let mut pages = 0;
        while let Some(url) = next {
            let page = world.client.get(&url).await.unwrap().json();
            assert_eq!(page["total"], 7);
            found.extend(ids(&page));
            pages += 1;
            let links = page["link"].as_array().unwrap();
            next = links
                .iter()
                .find(|link| link["relation"] == "next")
                .map(|link| link["url"].as_str().unwrap().to_owned());
            assert!(next.as_deref().is_none_or(|url| url.contains("/?_getpages=") && !url.contains("Patient")));
        }
        assert_eq!((pages, found), (3, ["1", "2", "3", "4", "5", "6", "7"].map(String::from).to_vec()));
        refused(&world.send("GET", "?_getpages=nothing", "").await, 410, "not-found");
    });
}

#[test]
fn a_transaction_links_its_entries_or_does_nothing() {
    in_the_cloud(|world| async move {
        world
            .send(
                "PUT",
                "Practitioner/dr",
                r#"{"resourceType":"Practitioner","id":"dr","identifier":[{"system":"npi","value":"9"}]}"#,
            )
            .await;
        let patient = "urn:uuid:61ebe359-bfdc-4613-8bf2-c5e300945f0a";
        let visit = "urn:uuid:88f151c0-a954-468a-88bd-5ae15c08e059";
        let good = format!(
            r#"{{"resourceType":"Bundle","type":"transaction","entry":[
            {{"fullUrl":"{visit}","resource":{{"resourceType":"Encounter","subject":{{"reference":"{patient}"}},"length":{{"value":1.50}},
              "participant":[{{"individual":{{"reference":"Practitioner?identifier=npi|9"}}}},{{"individual":{{"reference":"Practitioner?identifier=npi|8"}}}}],
              "text":{{"status":"generated","div":"<div><a href=\"{patient}\">her</a></div>"}}}},"request":{{"method":"POST","url":"Encounter"}}}},
            {{"fullUrl":"{patient}","resource":{{"resourceType":"Patient","identifier":[{{"system":"urn:ietf:rfc:3986","value":"{patient}"}}]}},
              "request":{{"method":"POST","url":"Patient","ifNoneExist":"identifier=urn:ietf:rfc:3986|{patient}"}}}},
            {{"resource":{{"resourceType":"Condition","id":"c","encounter":{{"reference":"{visit}"}},"extension":[{{"url":"x","valueUri":"{visit}"}}]}},
              "request":{{"method":"PUT","url":"Condition/c"}}}},
            {{"request":{{"method":"GET","url":"Condition/c"}}}}]}}"#
        );
        let reply = world.send("POST", "", &good).await;
        assert_eq!(reply.status, 200, "{}", reply.body);
        let answer = reply.json();
        assert_eq!(answer["type"], "transaction-response");
        assert_eq!(answer["entry"][1]["response"]["status"], "201 Created");
        assert_eq!(answer["entry"][2]["response"]["location"], "Condition/c/_history/1");
        assert_eq!(answer["entry"][3]["resource"]["id"], "c");

        let visit_id = answer["entry"][0]["response"]["location"].as_str().unwrap().split('/').nth(1).unwrap();
        let patient_id = answer["entry"][1]["response"]["location"].as_str().unwrap().split('/').nth(1).unwrap();
        let stored = world.send("GET", &format!("Encounter/{visit_id}"), "").await;
        assert!(stored.body.contains(r#""value":1.50"#));
        let stored = stored.json();
        assert_eq!(stored["subject"]["reference"], format!("Patient/{patient_id}"));
        assert_eq!(stored["participant"][0]["individual"]["reference"], "Practitioner/dr");
        assert_eq!(stored["participant"][1]["individual"]["reference"], "Practitioner?identifier=npi|8");
        assert_eq!(stored["text"]["div"], format!("<div><a href=\"Patient/{patient_id}\">her</a></div>"));
        let condition = world.get("Condition/c").await;
        assert_eq!(condition["extension"][0]["valueUri"], format!("Encounter/{visit_id}"));
        assert_eq!(world.get(&format!("Patient/{patient_id}")).await["identifier"][0]["value"], patient);
        assert_eq!(world.find(&format!("Condition?encounter={visit_id}")).await, ["c"]);

        let again = world.send("POST", "", &good).await.json();
        assert_eq!(again["entry"][1]["response"]["status"], "200 OK", "ifNoneExist");
        assert_eq!(again["entry"][1]["response"]["location"], format!("Patient/{patient_id}/_history/1"));

        let before = world.cloud.stored().len();
        let bad = r#"{"resourceType":"Bundle","type":"transaction","entry":[
            {"resource":{"resourceType":"Patient"},"request":{"method":"POST","url":"Patient"}},
            {"resource":{"resourceType":"Patient","id":"other"},"request":{"method":"PUT","url":"Patient/p"}}]}"#;
        refused(&world.send("POST", "", bad).await, 400, "invalid");
        assert_eq!(world.cloud.stored().len(), before);

        let batch = world.send("POST", "", &bad.replace("transaction", "batch")).await.json();
        assert_eq!(batch["type"], "batch-response");
        assert_eq!(batch["entry"][0]["response"]["status"], "201 Created");
        assert_eq!(batch["entry"][1]["response"]["status"], "400 Bad Request");
        assert_eq!(batch["entry"][1]["response"]["outcome"]["resourceType"], "OperationOutcome");
        assert_eq!(world.cloud.stored().len(), before + 1);
    });
}

#[test]
fn what_is_not_fhir_gets_an_outcome() {
    in_the_cloud(|world| async move {
        for (method, target, body, status, code) in [
            ("GET", "Patient/nobody", "", 404, "not-found"),
            ("GET", "Patient/1/_history/1", "", 404, "not-found"),
            ("GET", "Patient/bad_id", "", 400, "invalid"),
            ("GET", "patient/1", "", 404, "not-supported"),
            ("GET", "Patient?name=x", "", 400, "invalid"),
            ("GET", "Patient?identifier=%G1", "", 400, "invalid"),
            ("GET", "Patient?_count=x", "", 400, "invalid"),
            ("GET", "", "", 400, "invalid"),
            ("POST", "Patient", "{", 400, "structure"),
            ("POST", "Patient", "[]", 400, "structure"),
            ("POST", "Patient", r#"{"resourceType":"Group"}"#, 400, "invalid"),
            ("POST", "Patient", r#"{"resourceType":"Patient","meta":[]}"#, 400, "structure"),
            ("POST", "", r#"{"resourceType":"Bundle","type":"collection"}"#, 400, "invalid"),
            ("PUT", "Patient/1", r#"{"resourceType":"Patient"}"#, 400, "invalid"),
            ("PUT", "Patient/1", r#"{"resourceType":"Patient","id":"2"}"#, 400, "invalid"),
            ("PATCH", "Patient/1", "[]", 405, "not-supported"),
        ] {
            let reply = world.send(method, target, body).await;
            assert_eq!(reply.status, status, "{method} {target} {body}: {}", reply.body);
            refused(&reply, status, code);
        }
        let xml = world.with("POST", "Patient", &[("content-type", "application/fhir+xml")], "<Patient/>").await;
        refused(&xml, 415, "not-supported");
        assert_eq!(world.get("metadata").await["fhirVersion"], "4.0.1");
    });
}

#[test]
fn every_byte_is_written_down_and_a_thousand_updates_are_quick() {
    in_the_cloud(|world| async move {
        let started = std::time::Instant::now();
        for number in 0..1000 {
            let id = format!("o{}", number % 500);
            let body = json!({ "resourceType": "Observation", "id": id, "subject": { "reference": "Patient/p" }, "identifier": [{ "value": "same" }] });
            let reply = world.with("PUT", &format!("Observation/{id}"), &[("x-note", "seen")], &body.to_string()).await;
            assert!(reply.status < 300, "{}", reply.body);
        }
        assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
        assert_eq!(world.cloud.requests(), 1000);
        assert_eq!(world.cloud.stored().len(), 500);
        let received = String::from_utf8(world.cloud.received()).unwrap();
        assert_eq!(received.len() as u64, world.cloud.received_bytes());
        assert_eq!(received.matches("x-note: seen\r\n").count(), 1000);
        assert_eq!(received.matches("PUT ").count(), 1000);
        assert_eq!(received.matches(r#""reference":"Patient/p""#).count(), 1000);
        assert_eq!(world.find("Observation?patient=p&identifier=same&_count=1000").await.len(), 500);
        assert_eq!(world.find("Observation?patient=nobody").await.len(), 0);
    });
}
