//! The search parameters of each resource type: what kind of value they take and which elements they look at.
//!
//! Only names and places; the syntax of names and values is in [`query`](super::query). Parameters that steer the answer
//! (`_count`, `_include`, `_sort` ...) are no SearchParameters of FHIR and not listed. A parameter that is not known here,
//! or looks at no element, cannot be translated: whoever asks must refuse it.
//!
//! The tables are made from facts of HL7 FHIR (CC0) by `tools/tables.py`, one for each release.

use super::schema::{Kind, Release, Schema};
use std::sync::OnceLock;

/// The type of a search parameter (search.html#ptypes).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // the words of the specification
pub enum ParameterType {
    Number,
    Date,
    String,
    Token,
    Reference,
    Composite,
    Quantity,
    Uri,
    Special,
}

impl ParameterType {
    /// `token`, `reference` ...
    pub fn named(name: &str) -> Option<ParameterType> {
        Some(match name {
            "number" => ParameterType::Number,
            "date" => ParameterType::Date,
            "string" => ParameterType::String,
            "token" => ParameterType::Token,
            "reference" => ParameterType::Reference,
            "composite" => ParameterType::Composite,
            "quantity" => ParameterType::Quantity,
            "uri" => ParameterType::Uri,
            "special" => ParameterType::Special,
            _ => return None,
        })
    }
}

/// An element that a parameter looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// JSON keys below the resource: `participant.actor`, `component.valueQuantity`. Filters of the definition
    /// (`telecom.where(system='phone')`) are left out: the parameter looks at no more than this.
    pub path: &'static str,
    /// What stands there.
    pub kind: Kind,
}

/// A search parameter of one resource type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    /// The resource type, or `Resource` or `DomainResource` where every one has it.
    pub resource: &'static str,
    /// The name in the query: `birthdate`, `_id`.
    pub code: &'static str,
    /// How its values are written.
    pub kind: ParameterType,
    /// The elements it looks at. Empty for composites, and for what looks at extensions, text or the server's knowledge.
    pub places: Vec<Place>,
    /// Of a reference: the resource types it may point at. Empty: any.
    pub targets: &'static [&'static str],
    /// Of a composite: the codes of its components, in order.
    pub components: &'static [&'static str],
}

/// The search parameter `code` of a resource type; those that all resources have included. `None`: not defined by the
/// release. For a search over all types ask with `Resource`.
pub fn parameter(release: Release, resource_type: &str, code: &str) -> Option<&'static Parameter> {
    let schema = Schema::of(release);
    let table = parameters(release);
    let find = |resource: &str| {
        table.binary_search_by(|row| (row.resource, row.code).cmp(&(resource, code))).ok().map(|at| &table[at])
    };
    if resource_type == "Resource" {
        return find("Resource");
    }
    let id = schema.resource(resource_type)?;
    let is_domain_resource = schema.element(id, "contained").is_some();
    find(resource_type).or_else(|| find("Resource")).or_else(|| find("DomainResource").filter(|_| is_domain_resource))
}

/// Every parameter of a release, sorted by resource and code; for coverage reports.
pub fn parameters(release: Release) -> &'static [Parameter] {
    static R4: OnceLock<Vec<Parameter>> = OnceLock::new();
    static R4B: OnceLock<Vec<Parameter>> = OnceLock::new();
    static R5: OnceLock<Vec<Parameter>> = OnceLock::new();
    let schema = Schema::of(release);
    match release {
        Release::R4 => R4.get_or_init(|| read(schema, include_str!("tables/search_r4.tsv"))),
        Release::R4b => R4B.get_or_init(|| read(schema, include_str!("tables/search_r4b.tsv"))),
        Release::R5 => R5.get_or_init(|| read(schema, include_str!("tables/search_r5.tsv"))),
    }
}

/// Reads a table that is compiled in: a mistake in it is a bug, found by every test.
fn read(schema: &Schema, table: &'static str) -> Vec<Parameter> {
    let mut parameters = Vec::new();
    for line in table.lines().filter(|line| !line.starts_with('#')) {
        let columns: Vec<&'static str> = line.split('\t').collect();
        let [resource, code, kind, paths, targets] = columns[..] else { panic!("a row of our table has 5 columns") };
        let kind = ParameterType::named(kind).expect("the table names types of the specification");
        let (mut places, mut components) = (Vec::new(), &[][..]);
        match (kind, paths) {
            (_, "-") => {}
            (ParameterType::Composite, _) => components = &*paths.split('$').collect::<Vec<_>>().leak(),
            _ => places = paths.split('|').map(|path| place(schema, resource, path)).collect(),
        }
        let targets = match targets {
            "" => &[],
            _ => &*targets.split('|').collect::<Vec<_>>().leak(),
        };
        parameters.push(Parameter { resource, code, kind, places, targets, components });
    }
    parameters.sort_unstable_by_key(|parameter| (parameter.resource, parameter.code));
    parameters
}

fn place(schema: &Schema, resource: &str, path: &'static str) -> Place {
    // What every resource has, Basic has: abstract types are none of the schema.
    let root = if matches!(resource, "Resource" | "DomainResource") { "Basic" } else { resource };
    let mut kind = Kind::Complex(schema.type_named(root).expect("the table names types of the release"));
    for step in path.split('.') {
        let Kind::Complex(id) = kind else { panic!("a path of our table goes on below a leaf") };
        kind = schema.element(id, step).expect("the table names elements of the release").kind;
    }
    Place { path, kind }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fhir::schema::Category;

    #[track_caller]
    fn check(resource: &str, code: &str, kind: ParameterType, paths: &str, targets: &str) {
        let found = parameter(Release::R4, resource, code).unwrap_or_else(|| panic!("{resource} {code} is not known"));
        let places: Vec<_> = found.places.iter().map(|place| place.path).collect();
        let is = (found.kind, places.join("|"), found.targets.join("|"));
        assert_eq!(is, (kind, paths.to_owned(), targets.to_owned()), "{resource} {code}");
    }

    #[test]
    fn parameters_lead_to_their_elements() {
        use ParameterType::*;
        check("Patient", "identifier", Token, "identifier", "");
        check("Patient", "_id", Token, "id", "");
        check("Binary", "_lastUpdated", Date, "meta.lastUpdated", "");
        check("Patient", "_content", String, "", "");
        check("Patient", "_text", String, "", "");
        check("Patient", "age", Number, "", "");
        check("Patient", "death-date", Date, "deceasedDateTime", "");
        check("Patient", "phone", Token, "telecom", "");
        check("Patient", "family", String, "name.family", "");
        check("Observation", "patient", Reference, "subject", "Patient");
        check("Observation", "subject", Reference, "subject", "Device|Group|Location|Patient");
        check("Observation", "focus", Reference, "focus", "");
        check("Observation", "value-string", String, "valueString|valueCodeableConcept.text", "");
        check("DocumentReference", "identifier", Token, "masterIdentifier|identifier", "");
        check("Appointment", "patient", Reference, "participant.actor", "Patient");
        check("EnrollmentRequest", "patient", Reference, "candidate", "Patient");
        check("AuditEvent", "patient", Reference, "agent.who|entity.what", "Patient");
        let composite = parameter(Release::R4, "Observation", "code-value-quantity").unwrap();
        assert_eq!((composite.kind, composite.components), (Composite, &["code", "value-quantity"][..]));
    }

    #[test]
    fn what_is_not_defined_is_not_known() {
        for (resource, code) in [
            ("Patient", "mrn"),
            ("Patient", "Identifier"),
            ("Patient", ""),
            ("Binary", "_text"),
            ("Resource", "identifier"),
            ("DomainResource", "_id"),
            ("HumanName", "_id"),
            ("Nothing", "_id"),
        ] {
            assert_eq!(parameter(Release::R4, resource, code), None, "{resource} {code}");
        }
    }

    #[test]
    fn the_table_is_whole_and_in_itself_right() {
        for (release, rows) in [(Release::R4, 1719), (Release::R4b, 1757), (Release::R5, 1990)] {
            let schema = Schema::of(release);
            let all = parameters(release);
            assert_eq!(all.len(), rows);
            for row in all {
                assert!(parameter(release, row.resource, row.code).is_some() || row.resource == "DomainResource");
                for code in row.components {
                    assert!(parameter(release, row.resource, code).is_some(), "{} {}", row.resource, row.code);
                }
                for target in row.targets {
                    assert!(schema.resource(target).is_some(), "{} {}: {target}", row.resource, row.code);
                }
                assert!(
                    row.targets.is_empty() || row.kind == ParameterType::Reference,
                    "{} {}",
                    row.resource,
                    row.code
                );
            }
            for (_, definition) in schema.types().filter(|(_, definition)| definition.category == Category::Resource) {
                assert!(parameter(release, definition.name, "_id").is_some());
            }
        }
    }

    /// A reference parameter looks only at references: a bare id in it always means a resource.
    #[test]
    fn reference_parameters_look_at_references() {
        for release in [Release::R4, Release::R4b, Release::R5] {
            let schema = Schema::of(release);
            for row in parameters(release).iter().filter(|row| row.kind == ParameterType::Reference) {
                for place in &row.places {
                    let name = match place.kind {
                        Kind::Complex(id) => schema.definition(id).name,
                        Kind::Primitive(primitive) => primitive.name(),
                        Kind::Resource => "any resource",
                    };
                    let known = matches!(name, "Reference" | "canonical" | "uri" | "any resource");
                    assert!(known, "{} {}: {name}", row.resource, row.code);
                }
            }
        }
    }
}
