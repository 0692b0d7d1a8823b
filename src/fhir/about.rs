//! What a resource or a date is about: whom a resource names as its patient, which dates are someone's birth or death,
//! which times a server writes for itself.
//!
//! Only the words of the definitions count here, not the content of a resource: how many patients a subject element
//! names in one resource, and what follows from none or several, is for the rules (design §4, `no_subject`).

use super::schema::Release;

/// Where a resource type names the patient it is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// Patient: its own id.
    OwnId,
    /// The references at these element paths below the resource (`subject|participant.actor`), those of them that point at a
    /// Patient. What points elsewhere (Group, Device, Practitioner) is no patient; several patients are no single subject.
    References(&'static str),
    /// About nobody, about many, or only mentioning patients.
    Nobody,
}

/// Whom a resource type is about. `None`: the release does not define the type.
pub fn subject(release: Release, resource_type: &str) -> Option<Subject> {
    let path = subject_rows(release).find(|(name, _)| *name == resource_type)?.1;
    Some(match path {
        "id" => Subject::OwnId,
        "-" => Subject::Nobody,
        _ => Subject::References(path),
    })
}

fn subject_rows(release: Release) -> impl Iterator<Item = (&'static str, &'static str)> {
    let table = match release {
        Release::R4 => include_str!("tables/subjects_r4.tsv"),
        Release::R4b => include_str!("tables/subjects_r4b.tsv"),
        Release::R5 => include_str!("tables/subjects_r5.tsv"),
    };
    let lines = table.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.split_once('\t').expect("a row of our table has two columns"))
}

/// A date that says how old someone is or was. It never shares the offset of events (design §4): who knows a birth date
/// could undo the shift of everything else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LifeDate {
    /// Born.
    Birth,
    /// Died.
    Death,
}

/// Whether the element `key` of the type `type_name` (as in [`super::TypeDef::name`]) is a birth or death date. A Period
/// among them (`bornPeriod`) is one with both its ends, and so is the extension `patient-birthTime` in `_birthDate`.
pub fn life_date(type_name: &str, key: &str) -> Option<LifeDate> {
    match (type_name, key) {
        ("Patient" | "Person" | "Practitioner" | "RelatedPerson", "birthDate") => Some(LifeDate::Birth),
        ("FamilyMemberHistory", "bornDate" | "bornPeriod") => Some(LifeDate::Birth),
        ("Patient" | "Person" | "Practitioner", "deceasedDateTime") => Some(LifeDate::Death),
        ("FamilyMemberHistory", "deceasedDate") => Some(LifeDate::Death),
        _ => None,
    }
}

/// The same for the value of an extension with this url.
pub fn life_date_extension(url: &str) -> Option<LifeDate> {
    (url == BIRTH_TIME_EXTENSION).then_some(LifeDate::Birth)
}

/// The extension that says the time of a birth.
pub const BIRTH_TIME_EXTENSION: &str = "http://hl7.org/fhir/StructureDefinition/patient-birthTime";

/// Whether the element is a time that a server writes about its own work. Such times are never shifted or unshifted
/// (design §4). `recorded` and `issued` are not among them: they are dates about the patient's care like others.
pub fn server_time(type_name: &str, key: &str) -> bool {
    matches!(
        (type_name, key),
        ("Meta", "lastUpdated")
            | ("Bundle", "timestamp")
            | ("Bundle.entry.response", "lastModified")
            | ("Bundle.entry.request", "ifModifiedSince")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fhir::schema::{Category, Kind, Primitive, Schema};

    const RELEASES: [Release; 3] = [Release::R4, Release::R4b, Release::R5];

    /// The kind and targets at the end of a path of JSON keys.
    fn resolve(schema: &Schema, type_name: &str, path: &str) -> (Kind, Vec<&'static str>) {
        let mut kind = Kind::Complex(schema.type_named(type_name).unwrap());
        let mut targets = Vec::new();
        for step in path.split('.') {
            let Kind::Complex(id) = kind else { panic!("{type_name}.{path}: {step} is below a leaf") };
            let element = schema.element(id, step).unwrap_or_else(|| panic!("{type_name}.{path}: no {step}"));
            (kind, targets) = (element.kind, element.targets.to_vec());
        }
        (kind, targets)
    }

    #[test]
    fn every_resource_type_has_a_row_that_leads_to_patients() {
        for release in RELEASES {
            let schema = Schema::of(release);
            let reference = Kind::Complex(schema.type_named("Reference").unwrap());
            let resources = schema.types().filter(|(_, definition)| definition.category == Category::Resource);
            let names: Vec<_> = resources.map(|(_, definition)| definition.name).collect();
            assert_eq!(subject_rows(release).map(|(name, _)| name).collect::<Vec<_>>(), names);
            for name in names {
                match subject(release, name).unwrap() {
                    Subject::OwnId => assert_eq!(name, "Patient"),
                    Subject::Nobody => {}
                    Subject::References(paths) => {
                        for path in paths.split('|') {
                            let (kind, targets) = resolve(schema, name, path);
                            assert_eq!(kind, reference, "{name}.{path}");
                            assert!(targets.is_empty() || targets.contains(&"Patient"), "{name}.{path}");
                        }
                    }
                }
            }
        }
    }

    /// An element called `patient`, or `subject` that may be a patient, is one: nothing was forgotten.
    #[test]
    fn no_type_with_a_patient_element_is_about_nobody() {
        for release in RELEASES {
            let resources =
                Schema::of(release).types().filter(|(_, definition)| definition.category == Category::Resource);
            for (_, definition) in resources {
                let names_one = definition.elements.iter().any(|element| {
                    matches!(element.name, "patient" | "subject" | "beneficiary")
                        && element.targets.contains(&"Patient")
                });
                if names_one {
                    assert_ne!(subject(release, definition.name), Some(Subject::Nobody), "{}", definition.name);
                }
            }
        }
    }

    #[test]
    fn subjects() {
        for (release, name, expected) in [
            (Release::R4b, "DeviceUseStatement", Some(Subject::References("subject"))),
            (Release::R4b, "Media", Some(Subject::References("subject"))),
            (Release::R5, "DeviceUsage", Some(Subject::References("patient"))),
            (Release::R5, "Provenance", Some(Subject::References("patient"))),
            (Release::R5, "Appointment", Some(Subject::References("subject|participant.actor"))),
            (Release::R5, "Media", None),
        ] {
            assert_eq!(subject(release, name), expected, "{name}");
        }
        for (name, expected) in [
            ("Patient", Some(Subject::OwnId)),
            ("Observation", Some(Subject::References("subject"))),
            ("Coverage", Some(Subject::References("beneficiary"))),
            ("Appointment", Some(Subject::References("participant.actor"))),
            ("Organization", Some(Subject::Nobody)),
            ("AuditEvent", Some(Subject::Nobody)),
            ("HumanName", None),
            ("", None),
        ] {
            assert_eq!(subject(Release::R4, name), expected, "{name}");
        }
    }

    #[test]
    fn birth_death_and_server_times_are_dates_of_the_schema() {
        let (mut life, mut server) = (0, 0);
        for release in [Release::R4, Release::R4b, Release::R5] {
            let schema = Schema::of(release);
            let period = schema.type_named("Period").map(Kind::Complex);
            for (_, definition) in schema.types() {
                for element in &definition.elements {
                    let date = matches!(element.kind, Kind::Primitive(Primitive::Date | Primitive::DateTime));
                    if life_date(definition.name, element.name).is_some() {
                        life += 1;
                        assert!(date || Some(element.kind) == period, "{}.{}", definition.name, element.name);
                    } else {
                        // What is called so, and is a date, is one.
                        let called =
                            ["birth", "born", "deceased", "death"].iter().any(|word| element.name.contains(word));
                        assert!(!(called && date), "{}.{}", definition.name, element.name);
                    }
                    if server_time(definition.name, element.name) {
                        server += 1;
                        assert_eq!(element.kind, Kind::Primitive(Primitive::Instant));
                    }
                }
            }
        }
        assert_eq!((life, server), (8 + 8 + 10, 4 * 3));
    }
}
