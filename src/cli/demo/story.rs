//! The story that `cryptonym demo` tells, each sentence of it checked against what really happened.
//!
//! The checks look at the bytes that the cloud received and at the answers that callers got, never at what the rewriter
//! says of itself. A part that cannot go on says what the proxy answered and counts as a claim that failed.

use super::client::{Client, ClientError, Reply};
use super::patients::{MRN_SYSTEM, Patient, doctor_identity, patient, practitioner};
use super::seen::Readings;
use super::stage::Stage;
use super::voice::{Ink, Voice};
use crate::cli::demo::cloud::percent;
use serde_json::{Value, json};
use std::fs;
use std::io;
use std::time::Instant;

/// Patients sent one resource at a time; two more come in other ways.
const PATIENTS: u64 = 12;

/// Why the story broke off.
#[derive(Debug, thiserror::Error)]
pub enum StoryError {
    /// The terminal or pipe is closed.
    #[error("cannot write: {0}")]
    Output(#[from] io::Error),
    /// No answer at all.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// An answer that the story cannot go on from.
    #[error("{asked}: the proxy answered {status}: {told}")]
    Answer {
        /// What was asked.
        asked: String,
        /// HTTP status.
        status: u16,
        /// Diagnostics of the `OperationOutcome`. Nobody here is real, so it may be shown.
        told: String,
    },
}

/// Tells everything. Check `voice.failed` afterwards.
pub async fn tell(stage: &Stage, voice: &mut Voice<'_>) -> Result<(), StoryError> {
    let started = Instant::now();
    let people: Vec<Patient> = (0..PATIENTS).map(patient).collect();
    let (walk_in, exported) = (patient(PATIENTS), patient(PATIENTS + 1));
    let everybody: Vec<String> =
        people.iter().chain([&walk_in, &exported]).flat_map(Patient::identity).chain(doctor_identity()).collect();

    voice.line("A hospital uses a FHIR server in a cloud, and the cloud must not learn who the patients are.")?;
    voice.line("")?;
    voice.line("    hospital ward  --TLS-->  cryptonym  --TLS-->  cloud")?;
    voice.line("")?;
    voice.line("cryptonym replaces identity by pseudonyms on the way out, and puts it back for those who may know.")?;
    voice.line("All of this runs on this machine, with fresh keys and made-up people, and is removed afterwards.")?;

    let sent = upload(stage, voice, &people, &everybody).await?;
    read_back(stage, voice, &people[0], &sent, &everybody).await?;
    search(stage, voice, &people[3]).await?;
    assigned_id(stage, voice, &walk_in).await?;
    transaction(stage, voice, &exported).await?;
    audit(stage, voice, sent.len(), &everybody)?;

    let received = stage.cloud.received();
    let leak = Readings::of(&received).find(&everybody).map(str::to_owned);
    voice.heading("At the end")?;
    let all = format!(
        "of {} identifying values, none is in the {} bytes that the cloud received",
        everybody.len(),
        received.len()
    );
    voice.claim(leak.is_none(), &all)?;
    let seconds = started.elapsed().as_secs_f64();
    voice.line("")?;
    voice.line(&format!(
        "{} requests to the cloud in {seconds:.1} seconds; {} claims checked, {} not true.",
        stage.cloud.requests(),
        voice.held + voice.failed,
        voice.failed
    ))?;
    Ok(())
}

/// A resource that the ward sent, to compare with what comes back.
struct Sent {
    path: String,
    json: String,
}

async fn upload(
    stage: &Stage,
    voice: &mut Voice<'_>,
    people: &[Patient],
    everybody: &[String],
) -> Result<Vec<Sent>, StoryError> {
    let doctor = practitioner();
    let resources = people.iter().flat_map(Patient::resources).chain([doctor]);
    let mut sent = Vec::new();
    for resource in resources {
        let path = format!("{}/{}", resource.kind, resource.id);
        ask(&stage.ward, "PUT", stage, &path, &resource.json).await?;
        sent.push(Sent { path, json: resource.json });
    }
    voice.heading(&format!(
        "1. The ward sends {} records of {} patients. The first of them:",
        sent.len(),
        people.len()
    ))?;
    let stored = stored_patients(stage).into_iter().next().unwrap_or_default();
    let original: Value = serde_json::from_str(&people[0].resources()[0].json).unwrap_or_default();
    show(voice, ["the ward sent", "the cloud stored"], [&original, &stored], [Ink::Real, Ink::Pseudonym])?;
    voice.line("           (seal: which dates were moved, and by how much, for the proxy's eyes only)")?;
    let leak = Readings::of(&stage.cloud.received()).find(everybody).map(str::to_owned);
    voice
        .claim(leak.is_none(), "no name, number, address or id of anybody is in the bytes that the cloud received:")?;
    voice.line("       also not behind percent signs, JSON escapes, base64 or capital letters")?;
    voice.claim(
        stored["gender"] == original["gender"] && stored["active"] == original["active"] && stored["id"].is_string(),
        "what identifies nobody is as it was, so the cloud can work with it",
    )?;
    voice.claim(
        stored["birthDate"] != original["birthDate"] && stored["birthDate"].is_string(),
        "the birth date is another one",
    )?;
    let exact = stage.cloud.stored().iter().any(|resource| resource.json.contains("\"value\":36.60"));
    voice.claim(exact, "measured values are exact: 36.60 degrees did not become 36.6")?;
    Ok(sent)
}

async fn read_back(
    stage: &Stage,
    voice: &mut Voice<'_>,
    person: &Patient,
    sent: &[Sent],
    everybody: &[String],
) -> Result<(), StoryError> {
    voice.heading("2. Two callers read that patient. Both have a certificate; only the ward may know who it is:")?;
    let stored = stored_patients(stage).into_iter().next().unwrap_or_default();
    let pseudonym = stored["id"].as_str().unwrap_or_default();
    // The vendor knows the patient by pseudonym only, and asks by it.
    let vendor = ask(&stage.vendor, "GET", stage, &format!("Patient/{pseudonym}"), "").await?;
    let ward = ask(&stage.ward, "GET", stage, &format!("Patient/{}", person.id), "").await?;
    show(voice, ["the vendor gets", "the ward gets"], [&vendor.json(), &ward.json()], [Ink::Pseudonym, Ink::Real])?;
    let headers = format!("{:?}", vendor.headers);
    let leak = Readings::of(format!("{headers}{}", vendor.body).as_bytes()).find(everybody).map(str::to_owned);
    voice.claim(leak.is_none(), "the vendor's answer names nobody")?;
    let mut same = 0;
    for one in sent {
        let back = ask(&stage.ward, "GET", stage, &one.path, "").await?;
        let expected: Value = serde_json::from_str(&one.json).unwrap_or_default();
        same += usize::from(without_meta(back.json()) == without_meta(expected));
    }
    voice.claim(
        same == sent.len(),
        &format!("{same} of {} records come back to the ward value for value", sent.len()),
    )?;
    Ok(())
}

async fn search(stage: &Stage, voice: &mut Voice<'_>, person: &Patient) -> Result<(), StoryError> {
    voice.heading("3. The ward searches by a real medical record number:")?;
    let before = stage.cloud.received().len();
    let target = format!("Patient?identifier={}", percent(&format!("{MRN_SYSTEM}|{}", person.mrn)));
    let found = ask(&stage.ward, "GET", stage, &target, "").await?.json();
    let wire = stage.cloud.received().split_off(before);
    let wire_text = String::from_utf8_lossy(&wire);
    let crossed = wire_text.lines().next().unwrap_or_default();
    let matches = found["entry"].as_array().cloned().unwrap_or_default();
    let name = matches.first().map(|entry| name_of(&entry["resource"])).unwrap_or_default();
    voice.line(&format!("asked      GET /{}", target.replace("%3A", ":").replace("%2F", "/").replace("%7C", "|")))?;
    voice.line(&format!("crossed    {}", crossed.replace("%3A", ":").replace("%2F", "/").replace("%7C", "|")))?;
    voice.line(&format!("came back  {} match: {name}", matches.len()))?;
    let right = matches.len() == 1 && matches[0]["resource"]["id"] == person.id.as_str();
    voice.claim(right, "the search found this patient and no other")?;
    let leak = Readings::of(&wire).find(&person.identity()).is_some();
    voice.claim(!leak, "and the cloud never saw the number")?;
    Ok(())
}

async fn assigned_id(stage: &Stage, voice: &mut Voice<'_>, person: &Patient) -> Result<(), StoryError> {
    voice.heading("4. A new patient gets an id from the cloud, is read, changed, and referred to:")?;
    let created = ask(&stage.ward, "POST", stage, "Patient", &person.without_id()).await?;
    let (shown, theirs) = (id_of(&created).unwrap_or_default(), last_stored(stage, "Patient").0);
    let path = format!("Patient/{shown}");
    let mut read = without_meta(ask(&stage.ward, "GET", stage, &path, "").await?.json());
    let family_back = read["name"][0]["family"] == person.family;
    read["maritalStatus"] =
        json!({ "coding": [{ "system": "http://terminology.hl7.org/CodeSystem/v3-MaritalStatus", "code": "M" }] });
    ask(&stage.ward, "PUT", stage, &path, &read.to_string()).await?;
    let pulse = json!({
        "resourceType": "Observation", "status": "final", "subject": { "reference": path },
        "code": { "coding": [{ "system": "http://loinc.org", "code": "8867-4" }] },
    });
    ask(&stage.ward, "POST", stage, "Observation", &pulse.to_string()).await?;
    let (_, stored) = last_stored(stage, "Patient");
    let (_, observation) = last_stored(stage, "Observation");
    voice.line(&format!("the cloud calls it        Patient/{theirs}"))?;
    voice.line(&format!("the ward is told          {path}"))?;
    voice.claim(family_back, &format!("read by that id, it is {} {}", person.given, person.family))?;
    voice.claim(
        stored["id"] == theirs.as_str() && stored["meta"]["versionId"] == "2" && stored["maritalStatus"].is_object(),
        "the change reached the cloud's own record, as version 2 of it",
    )?;
    let linked = observation["subject"]["reference"] == format!("Patient/{theirs}");
    voice.claim(linked, "a new observation points to it by the cloud's own id")?;
    Ok(())
}

async fn transaction(stage: &Stage, voice: &mut Voice<'_>, person: &Patient) -> Result<(), StoryError> {
    voice
        .heading("5. A whole record in one transaction. Its dates are moved on the way out, and back for the ward:")?;
    let bundle = person.transaction();
    let answer = ask(&stage.ward, "POST", stage, "", &bundle).await?.json();
    let location = answer["entry"][0]["response"]["location"].as_str().unwrap_or_default();
    let id = after_type(location, "Patient").unwrap_or_default();
    let back = ask(&stage.ward, "GET", stage, &format!("Observation?patient={id}"), "").await?.json();

    let written: Value = serde_json::from_str(&bundle).unwrap_or_default();
    let sent = dates(written["entry"].as_array().into_iter().flatten().map(|entry| &entry["resource"]));
    let back = dates(back["entry"].as_array().into_iter().flatten().map(|entry| &entry["resource"]));
    let (theirs, stored_patient) = last_stored(stage, "Patient");
    let reference = format!("Patient/{theirs}");
    let observations = stored(stage, "Observation");
    let stored = dates(observations.iter().filter(|resource| resource["subject"]["reference"] == reference.as_str()));
    let rows: Vec<_> = (0..sent.len())
        .map(|at| {
            // To the minute: seconds and zone are the same on both sides.
            let date = |list: &[String]| list.get(at).and_then(|date| date.get(..16)).unwrap_or("-").to_owned();
            (format!("visit {}", at / 2 + 1), format!("{:16}   {}", date(&sent), date(&back)), date(&stored))
        })
        .step_by(2)
        .collect();
    let heads = ["the ward sent      the ward gets", "the cloud stored"];
    voice.columns(heads, &rows, [Ink::Real, Ink::Pseudonym])?;
    voice.claim(!sent.is_empty() && sent == back, "every date comes back as it was sent")?;
    let moved = stored.len() == sent.len() && sent.iter().all(|date| !stored.contains(date));
    voice.claim(moved, "the cloud has other dates")?;
    let gap = |list: &[String]| Some(days(list.last()?)? - days(list.first()?)?);
    voice.claim(
        gap(&sent).is_some() && gap(&stored) == gap(&sent),
        "and the days between two visits are the same, so that it can still be studied",
    )?;
    let doctor = stored_patient["generalPractitioner"][0]["reference"].as_str().unwrap_or_default();
    let known = self::stored(stage, "Practitioner")
        .iter()
        .any(|one| doctor == format!("Practitioner/{}", one["id"].as_str().unwrap_or_default()));
    voice.claim(known, "the doctor, named in it by her number only, was found by the cloud")?;
    Ok(())
}

fn audit(stage: &Stage, voice: &mut Voice<'_>, records: usize, everybody: &[String]) -> Result<(), StoryError> {
    voice.heading("6. The audit: a line on the disk for each answer that revealed something. The last one:")?;
    let text = fs::read_to_string(stage.folder.join("audit.jsonl")).unwrap_or_default();
    let last = text.lines().last().unwrap_or_default();
    for piece in last.as_bytes().chunks(96) {
        voice.line(&format!("    {}", String::from_utf8_lossy(piece)))?;
    }
    let lines = text.lines().count();
    voice.claim(
        last.contains("ward") && !text.contains("vendor") && lines >= records,
        &format!("{lines} lines tell what the ward was shown; none names the vendor, who was shown nothing"),
    )?;
    voice.claim(
        !text.is_empty() && Readings::of(text.as_bytes()).find(everybody).is_none(),
        "the audit names no patient either",
    )?;
    Ok(())
}

/// Asks, and takes nothing but success for an answer.
async fn ask(client: &Client, method: &str, stage: &Stage, target: &str, body: &str) -> Result<Reply, StoryError> {
    let reply = client.send(method, &format!("{}/{target}", stage.base), &[], body).await?;
    if reply.status < 300 {
        return Ok(reply);
    }
    let issue = &reply.json()["issue"][0];
    let told = [&issue["diagnostics"], &issue["details"]["text"], &issue["code"]]
        .iter()
        .find_map(|text| text.as_str())
        .unwrap_or("(no reason)")
        .to_owned();
    Err(StoryError::Answer { asked: format!("{method} /{target}"), status: reply.status, told })
}

/// The two portraits side by side.
fn show(voice: &mut Voice<'_>, heads: [&str; 2], patients: [&Value; 2], inks: [Ink; 2]) -> io::Result<()> {
    let rows: Vec<_> = portrait(patients[0])
        .into_iter()
        .zip(portrait(patients[1]))
        .map(|((label, left), (_, right))| (label.to_owned(), left, right))
        .collect();
    voice.columns(heads, &rows, inks)
}

/// What a person looks at first.
fn portrait(patient: &Value) -> Vec<(&'static str, String)> {
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let narrative = patient["text"]["div"].as_str().unwrap_or("-");
    let address = &patient["address"][0];
    let tags = patient["meta"]["tag"].as_array().cloned().unwrap_or_default();
    let seal =
        tags.iter().find(|tag| tag["system"] == "urn:cryptonym:seal").map_or("-".to_owned(), |tag| text(&tag["code"]));
    vec![
        ("id", text(&patient["id"])),
        ("MRN", text(&patient["identifier"][0]["value"])),
        ("name", name_of(patient)),
        ("phone", text(&patient["telecom"][0]["value"])),
        ("address", format!("{}, {}", text(&address["line"][0]), text(&address["city"]))),
        ("born", text(&patient["birthDate"])),
        ("sex", text(&patient["gender"])),
        ("narrative", plain(narrative)),
        ("seal", seal),
    ]
}

fn name_of(patient: &Value) -> String {
    let name = &patient["name"][0];
    format!("{}, {}", name["family"].as_str().unwrap_or("-"), name["given"][0].as_str().unwrap_or("-"))
}

/// Narrative without its tags.
fn plain(html: &str) -> String {
    let mut inside = false;
    html.chars()
        .filter(|&c| {
            let shown = !inside && c != '<';
            inside = c == '<' || (inside && c != '>');
            shown
        })
        .collect()
}

/// `meta` is the server's: version and time differ, and the seal is gone.
fn without_meta(mut resource: Value) -> Value {
    if let Some(members) = resource.as_object_mut() {
        members.remove("meta");
    }
    resource
}

fn stored(stage: &Stage, kind: &str) -> Vec<Value> {
    let all = stage.cloud.stored();
    all.iter()
        .filter(|resource| resource.kind == kind)
        .filter_map(|resource| serde_json::from_str(&resource.json).ok())
        .collect()
}

fn stored_patients(stage: &Stage) -> Vec<Value> {
    stored(stage, "Patient")
}

/// Id and content of the youngest resource of a type.
fn last_stored(stage: &Stage, kind: &str) -> (String, Value) {
    let last = stored(stage, kind).pop().unwrap_or_default();
    (last["id"].as_str().unwrap_or_default().to_owned(), last)
}

/// The id in a `Location`.
fn id_of(reply: &Reply) -> Option<String> {
    after_type(reply.header("location")?, "Patient")
}

fn after_type(location: &str, kind: &str) -> Option<String> {
    let mut segments = location.split('/').skip_while(|segment| *segment != kind);
    segments.nth(1).map(str::to_owned)
}

/// Dates of observations, in order of time.
fn dates<'a>(resources: impl Iterator<Item = &'a Value>) -> Vec<String> {
    let mut dates: Vec<String> =
        resources.filter_map(|resource| resource["effectiveDateTime"].as_str().map(str::to_owned)).collect();
    dates.sort();
    dates
}

/// Days since 1970 of the date that a text begins with.
fn days(text: &str) -> Option<i32> {
    let date: jiff::civil::Date = text.get(..10)?.parse().ok()?;
    Some(date.since(jiff::civil::Date::constant(1970, 1, 1)).ok()?.get_days())
}
