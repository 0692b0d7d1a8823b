//! Made-up people with realistic records: the same ones at every run, and obviously nobody.
//!
//! Names, streets and towns are invented and at least seven letters long, so that a search for them in random-looking
//! pseudonyms finds nothing by chance. No real person, number or place is meant; telephone numbers are the reserved 555-01xx.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

/// Whose number an MRN is.
pub const MRN_SYSTEM: &str = "https://hospital.example/mrn";
/// The system of US social security numbers (R4, identifier-registry).
const SSN_SYSTEM: &str = "http://hl7.org/fhir/sid/us-ssn";
/// The system of national provider numbers.
const NPI_SYSTEM: &str = "http://hl7.org/fhir/sid/us-npi";
const NPI: &str = "9990004217";
/// Family name, given name and logical id of the doctor of all of them.
const DOCTOR: [&str; 3] = ["Rhubarbsson", "Philippa", "doctor-0042"];

const GIVEN: [&str; 12] = [
    "Ottoline",
    "Barnabus",
    "Celestina",
    "Dagoberto",
    "Euphemia",
    "Florizel",
    "Griselda",
    "Hyacinthe",
    "Ignatius",
    "Jacobina",
    "Lysander",
    "Marigold",
];
const FAMILY: [&str; 13] = [
    "Quillfeather",
    "Thistlewick",
    "Umberdown",
    "Vellacourt",
    "Wobblestone",
    "Yarrowmead",
    "Zephyrhart",
    "Applegarthen",
    "Brindlemoor",
    "Copperwhistle",
    "Dandelmayer",
    "Elderbrooke",
    "Fiddlewood",
];
const STREET: [&str; 7] = [
    "Marmalade Mews",
    "Lanternpost Lane",
    "Gingerbread Row",
    "Teakettle Terrace",
    "Windmill Hollow",
    "Buttonhole Bend",
    "Moonraker Rise",
];
const CITY: [&str; 5] = ["Puddlington", "Nethermarsh", "Larkenvale", "Cobbleham", "Foxgloveton"];

/// A resource as the hospital spells it.
pub struct Resource {
    /// Type name.
    pub kind: &'static str,
    /// Logical id; empty in a transaction, where the server gives one.
    pub id: String,
    /// FHIR JSON.
    pub json: String,
}

/// A person who does not exist.
pub struct Patient {
    number: u64,
    /// Logical id at the hospital.
    pub id: String,
    /// Medical record number.
    pub mrn: String,
    /// Social security number, of a range that is never issued.
    pub ssn: String,
    /// First name.
    pub given: &'static str,
    /// Last name.
    pub family: &'static str,
    /// Telephone.
    pub phone: String,
    /// Mail address.
    pub email: String,
    /// House and street.
    pub street: String,
    /// Town.
    pub city: &'static str,
    /// Nine-digit postal code.
    pub postal: String,
    /// Date of birth.
    pub birth: String,
}

/// How resources of one record point at each other.
#[derive(Clone, Copy, PartialEq)]
enum Links {
    /// `Patient/pat-…`, each resource with its own id.
    Ids,
    /// `urn:uuid:…` of the entries of one transaction, the doctor by a search for her number.
    Transaction,
}

/// The doctor of all of them.
pub fn practitioner() -> Resource {
    let id = DOCTOR[2];
    let json = json!({
        "resourceType": "Practitioner", "id": id, "active": true,
        "identifier": [{ "system": NPI_SYSTEM, "value": NPI }],
        "name": [{ "family": DOCTOR[0], "given": [DOCTOR[1]], "prefix": ["Dr."] }],
    });
    Resource { kind: "Practitioner", id: id.into(), json: json.to_string() }
}

/// What must not be seen of the doctor.
pub fn doctor_identity() -> impl Iterator<Item = String> {
    DOCTOR.into_iter().chain([NPI]).map(str::to_owned)
}

/// The patient with this number. Up to 156 of them differ in name.
pub fn patient(number: u64) -> Patient {
    let pick = |list: &[&'static str], salt: u64| list[((number + salt) % list.len() as u64) as usize];
    let (given, family) = (pick(&GIVEN, 0), pick(&FAMILY, 0));
    // Spread by a multiplication so that neighbours look unlike.
    let mixed = (number + 17).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 24;
    Patient {
        number,
        id: format!("pat-{:08}", mixed % 100_000_000),
        mrn: format!("MRN-{:08}", (mixed / 7) % 100_000_000),
        ssn: format!("999-{:02}-{:04}", 10 + mixed % 80, (mixed / 80) % 10_000),
        given,
        family,
        phone: format!("+1-{}-555-01{:02}", 201 + mixed % 700, mixed % 100),
        email: format!("{}.{}@mail.example", given.to_lowercase(), family.to_lowercase()),
        street: format!("{} {}", 1 + mixed % 998, pick(&STREET, mixed)),
        city: pick(&CITY, mixed / 3),
        postal: format!("{:05}-{:04}", 10_000 + mixed % 89_999, mixed % 10_000),
        birth: format!("{}-{:02}-{:02}", 1936 + mixed % 70, 1 + mixed % 12, 1 + (mixed / 12) % 28),
    }
}

impl Patient {
    /// What must never be seen by those who may not know: all of it longer than six characters.
    pub fn identity(&self) -> Vec<String> {
        let Patient { id, mrn, ssn, phone, email, street, postal, .. } = self;
        let texts = [id, mrn, ssn, phone, email, street, postal].map(String::clone);
        texts.into_iter().chain([self.given, self.family, self.city].map(str::to_owned)).collect()
    }

    /// The record as single resources, the patient first. An update of the patient alone is `resources()[0]`.
    pub fn resources(&self) -> Vec<Resource> {
        self.record(Links::Ids).into_iter().map(|(kind, id, json)| Resource { kind, id, json }).collect()
    }

    /// The patient without an id: the server will give one.
    pub fn without_id(&self) -> String {
        self.record(Links::Transaction).swap_remove(0).2
    }

    /// The same record as one `urn:uuid` transaction, as an export tool writes it: every entry a `POST`.
    pub fn transaction(&self) -> String {
        let entries: Vec<String> = self
            .record(Links::Transaction)
            .into_iter()
            .map(|(kind, id, json)| {
                format!(r#"{{"fullUrl":"{id}","resource":{json},"request":{{"method":"POST","url":"{kind}"}}}}"#)
            })
            .collect();
        format!(r#"{{"resourceType":"Bundle","type":"transaction","entry":[{}]}}"#, entries.join(","))
    }

    /// Type, id (or `urn:uuid` of the entry) and text of each resource.
    fn record(&self, links: Links) -> Vec<(&'static str, String, String)> {
        let name = |kind: &str, number: u64| match links {
            Links::Ids if kind == "Patient" => self.id.clone(),
            Links::Ids => format!("{}-{:06}-{number}", kind.to_lowercase(), self.number),
            Links::Transaction => {
                let kinds = ["Patient", "Encounter", "Observation", "Condition", "DocumentReference"];
                let kind = kinds.iter().position(|known| *known == kind).unwrap_or(kinds.len());
                let place = kind as u64 * 1000 + number + 0x7d00_0000;
                format!("urn:uuid:{place:08x}-5eed-4abc-8def-{:012x}", self.number + 0xfab1_e000)
            }
        };
        let link = |kind: &str, number: u64| match links {
            Links::Ids => format!("{kind}/{}", name(kind, number)),
            Links::Transaction => name(kind, number),
        };
        let doctor = match links {
            Links::Ids => format!("Practitioner/{}", DOCTOR[2]),
            Links::Transaction => format!("Practitioner?identifier={NPI_SYSTEM}|{NPI}"),
        };
        let mut record = Vec::new();
        let mut add = |kind: &'static str, number: u64, mut resource: Value| {
            resource["resourceType"] = kind.into();
            if links == Links::Ids {
                resource["id"] = name(kind, number).into();
            }
            // Numbers stand in the text as instruments print them: a trailing zero says how exact they are.
            let text = resource.to_string().replace("\"36.60\"", "36.60").replace("\"72.0\"", "72.0");
            record.push((kind, name(kind, number), text));
        };

        let (given, family) = (self.given, self.family);
        add(
            "Patient",
            0,
            json!({
                "active": true,
                "text": { "status": "generated", "div": format!(
                    "<div xmlns=\"http://www.w3.org/1999/xhtml\"><p>{given} <b>{family}</b>, born {}, {}</p></div>", self.birth, self.mrn) },
                "identifier": [
                    { "use": "usual", "system": MRN_SYSTEM, "value": self.mrn,
                      "type": { "coding": [{ "system": "http://terminology.hl7.org/CodeSystem/v2-0203", "code": "MR" }] } },
                    { "system": SSN_SYSTEM, "value": self.ssn },
                ],
                "name": [{ "use": "official", "family": family, "given": [given] }],
                "telecom": [{ "system": "phone", "value": self.phone }, { "system": "email", "value": self.email }],
                "gender": if self.number.is_multiple_of(2) { "female" } else { "male" },
                "birthDate": self.birth,
                "address": [{ "line": [self.street], "city": self.city, "postalCode": self.postal, "country": "US" }],
                "generalPractitioner": [{ "reference": doctor }],
            }),
        );
        let subject = json!({ "reference": link("Patient", 0) });
        for visit in 0..2 {
            let day = format!(
                "20{}-{:02}-{:02}",
                19 + visit * 3,
                1 + (self.number + visit) % 12,
                1 + (self.number * 5 + visit * 11) % 28
            );
            let encounter = json!({ "reference": link("Encounter", visit) });
            add(
                "Encounter",
                visit,
                json!({
                    "status": "finished",
                    "class": { "system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "AMB" },
                    "subject": subject,
                    "participant": [{ "individual": { "reference": doctor } }],
                    "period": { "start": format!("{day}T09:00:00+01:00"), "end": format!("{day}T09:25:00+01:00") },
                }),
            );
            for (number, code, words, value, unit) in
                [(0, "8310-5", "Body temperature", "36.60", "Cel"), (1, "8867-4", "Heart rate", "72.0", "/min")]
            {
                add(
                    "Observation",
                    visit * 2 + number,
                    json!({
                        "status": "final",
                        "code": { "coding": [{ "system": "http://loinc.org", "code": code, "display": words }] },
                        "subject": subject, "encounter": encounter,
                        "effectiveDateTime": format!("{day}T09:1{number}:00+01:00"),
                        "valueQuantity": { "value": value, "unit": unit, "system": "http://unitsofmeasure.org", "code": unit },
                    }),
                );
            }
        }
        add(
            "Condition",
            0,
            json!({
                "clinicalStatus": { "coding": [{ "system": "http://terminology.hl7.org/CodeSystem/condition-clinical", "code": "active" }] },
                "code": { "coding": [{ "system": "http://snomed.info/sct", "code": "38341003", "display": "Hypertensive disorder" }] },
                "subject": subject, "encounter": { "reference": link("Encounter", 0) },
                "onsetDateTime": format!("2018-{:02}-14", 1 + self.number % 12),
            }),
        );
        let note = format!(
            "Seen today: {given} {family} ({}), who lives at {}, {}. Blood pressure is better.",
            self.mrn, self.street, self.city
        );
        add(
            "DocumentReference",
            0,
            json!({
                "status": "current", "subject": subject, "author": [{ "reference": doctor }],
                "date": format!("2022-{:02}-20T10:00:00.000+01:00", 1 + self.number % 12),
                "content": [{ "attachment": { "contentType": "text/plain", "data": STANDARD.encode(note) } }],
            }),
        );
        record
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn people_differ_and_stay_the_same() {
        let all: Vec<Patient> = (0..100).map(patient).collect();
        let unique = |of: fn(&Patient) -> String| all.iter().map(of).collect::<BTreeSet<_>>().len();
        assert_eq!([unique(|p| p.id.clone()), unique(|p| p.mrn.clone()), unique(|p| p.ssn.clone())], [100; 3]);
        assert_eq!(unique(|p| format!("{} {}", p.given, p.family)), 100);
        assert_eq!(patient(3).transaction(), patient(3).transaction());
        assert!(all.iter().flat_map(Patient::identity).all(|text| text.len() >= 7));
    }

    #[test]
    fn a_record_is_whole() {
        let resources = patient(0).resources();
        assert_eq!(resources.len(), 9);
        assert!(resources.iter().any(|resource| resource.json.contains("\"value\":36.60")));
        let bundle: Value = serde_json::from_str(&patient(0).transaction()).unwrap();
        let urls: BTreeSet<&str> =
            bundle["entry"].as_array().unwrap().iter().map(|entry| entry["fullUrl"].as_str().unwrap()).collect();
        assert_eq!(urls.len(), 9);
        assert!(urls.contains(bundle["entry"][1]["resource"]["subject"]["reference"].as_str().unwrap()));
    }
}
