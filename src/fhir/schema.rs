//! The element tables: which keys an object of each FHIR type may have, of which type, how many, and which must be there.
//!
//! A key that [`Schema::element`] does not know is not FHIR of that release: whoever asks must refuse or remove it, never
//! pass it. Choices (`value[x]`) stand expanded under their JSON keys; inherited elements stand with every type; content
//! references share the type they point at. `_x` twins are not listed: each primitive `x` may have one. This file does
//! not know value sets, invariants or profiles.
//!
//! The tables are facts of HL7 FHIR (CC0), read once per release from text that is compiled in.

use crate::names::ByWord;
use std::sync::OnceLock;

/// A release of FHIR. Its tables differ: never mix [`TypeId`]s of two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Release {
    /// 4.0.1
    R4,
    /// 4.3.0
    R4b,
    /// 5.0.0
    R5,
}

impl Release {
    /// As rule files spell it: `R4`, `R4B`, `R5`.
    pub fn name(self) -> &'static str {
        match self {
            Release::R4 => "R4",
            Release::R4b => "R4B",
            Release::R5 => "R5",
        }
    }
}

/// A resource type, datatype or backbone element of one release: `Patient`, `HumanName`, `Patient.contact`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TypeId(u16);

impl TypeId {
    /// Position in [`Schema::types`], for tables indexed by type.
    pub fn index(self) -> usize {
        self.0.into()
    }
}

/// How JSON spells a primitive (json.html#primitive).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JsonKind {
    /// `"..."`
    String,
    /// `1.0`
    Number,
    /// `true`
    Boolean,
}

macro_rules! primitives {
    ($($variant:ident $name:literal $json:ident,)*) => {
        /// A primitive datatype (datatypes.html#primitive).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[allow(missing_docs)] // each is the datatype of the same name
        pub enum Primitive { $($variant,)* }

        impl Primitive {
            /// Every primitive datatype.
            pub const ALL: &'static [Primitive] = &[$(Primitive::$variant,)*];

            /// The name of the specification: `unsignedInt`.
            pub fn name(self) -> &'static str {
                match self { $(Primitive::$variant => $name,)* }
            }

            /// How JSON spells its values.
            pub fn json(self) -> JsonKind {
                match self { $(Primitive::$variant => JsonKind::$json,)* }
            }
        }
    };
}

primitives! {
    Boolean "boolean" Boolean,
    Integer "integer" Number,
    Decimal "decimal" Number,
    UnsignedInt "unsignedInt" Number,
    PositiveInt "positiveInt" Number,
    Integer64 "integer64" String,
    String "string" String,
    Markdown "markdown" String,
    Code "code" String,
    Id "id" String,
    Uri "uri" String,
    Url "url" String,
    Canonical "canonical" String,
    Oid "oid" String,
    Uuid "uuid" String,
    Date "date" String,
    DateTime "dateTime" String,
    Instant "instant" String,
    Time "time" String,
    Base64Binary "base64Binary" String,
    Xhtml "xhtml" String,
}

impl Primitive {
    /// The primitive of this name.
    pub fn named(name: &str) -> Option<Primitive> {
        Primitive::ALL.iter().copied().find(|primitive| primitive.name() == name)
    }
}

/// What stands under a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A leaf.
    Primitive(Primitive),
    /// An object of this type.
    Complex(TypeId),
    /// Any resource: `contained`, `Bundle.entry.resource`, `Parameters.parameter.resource` ...
    Resource,
}

/// One JSON key of a type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Element {
    /// The JSON key, choices expanded: `valueQuantity`.
    pub name: &'static str,
    /// As the specification declares it: `value[x]`; else the same as `name`. Of one choice an object has one key.
    pub declared: &'static str,
    /// What stands under the key.
    pub kind: Kind,
    /// Minimum cardinality 1. Each key of a required choice says so; one of them suffices.
    pub required: bool,
    /// An array in JSON.
    pub many: bool,
    /// For references and canonicals the resource types they may point at. Empty: any (or no reference at all).
    pub targets: &'static [&'static str],
}

/// What a type is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Category {
    /// Has a `resourceType`.
    Resource,
    /// `HumanName`, `Age`, `Extension` ...
    Datatype,
    /// Defined inside a resource or datatype: `Patient.contact`, `Timing.repeat`.
    Backbone,
}

/// One type with all its elements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypeDef {
    /// `Patient`, `HumanName`, `Patient.contact`.
    pub name: &'static str,
    /// What it is.
    pub category: Category,
    /// Every key an object of this type may have (but `resourceType` and `_x`), inherited ones included, sorted by name.
    pub elements: Vec<Element>,
}

/// The types of one release.
#[derive(Debug)]
pub struct Schema {
    release: Release,
    /// Indexed by `TypeId`, sorted by name.
    types: Vec<TypeDef>,
    by_name: ByWord<TypeId>,
}

/// Types that only lend their elements to others.
const ABSTRACT: [&str; 4] = ["Resource", "DomainResource", "Element", "BackboneElement"];

impl Schema {
    /// The tables of a release. The first call reads them (some milliseconds), later ones return the same.
    pub fn of(release: Release) -> &'static Schema {
        static R4: OnceLock<Schema> = OnceLock::new();
        static R4B: OnceLock<Schema> = OnceLock::new();
        static R5: OnceLock<Schema> = OnceLock::new();
        match release {
            Release::R4 => R4.get_or_init(|| read(release, include_str!("tables/r4.tsv"))),
            Release::R4b => R4B.get_or_init(|| read(release, include_str!("tables/r4b.tsv"))),
            Release::R5 => R5.get_or_init(|| read(release, include_str!("tables/r5.tsv"))),
        }
    }

    /// Whose tables these are.
    pub fn release(&self) -> Release {
        self.release
    }

    /// The resource type of this name (what `resourceType` may say).
    pub fn resource(&self, name: &str) -> Option<TypeId> {
        self.type_named(name).filter(|id| self.definition(*id).category == Category::Resource)
    }

    /// The type of this name, whatever its category. Primitives and abstract types (`Element`, `Resource`) are none.
    pub fn type_named(&self, name: &str) -> Option<TypeId> {
        self.by_name.get(name).copied()
    }

    /// What the type is made of.
    pub fn definition(&self, id: TypeId) -> &TypeDef {
        &self.types[id.index()]
    }

    /// What stands under a key of this type, `None` if the release does not define the key. Keys are compared decoded
    /// and exactly.
    pub fn element(&self, id: TypeId, key: &str) -> Option<&Element> {
        let elements = &self.definition(id).elements;
        elements.binary_search_by(|element| element.name.cmp(key)).ok().map(|at| &elements[at])
    }

    /// The elements that a path step `name` means: `value` gives every key of `value[x]`.
    pub fn declared<'a>(&'a self, id: TypeId, name: &'a str) -> impl Iterator<Item = &'a Element> {
        let elements = self.definition(id).elements.iter();
        elements.filter(move |element| element.declared.strip_suffix("[x]").unwrap_or(element.declared) == name)
    }

    /// True for a key that is not known, but that a reader which compares names without regard to case would take for
    /// `resourceType` or a known key: two parsers would see two different resources (design §6).
    pub fn near_miss(&self, id: TypeId, key: &str) -> bool {
        let alike = |known: &str| known != key && folded(known).eq(folded(key));
        self.element(id, key).is_none()
            && (alike("resourceType") || self.definition(id).elements.iter().any(|element| alike(element.name)))
    }

    /// Every type, sorted by name.
    pub fn types(&self) -> impl Iterator<Item = (TypeId, &TypeDef)> {
        self.types.iter().enumerate().map(|(at, definition)| (type_id(at), definition))
    }
}

/// Simple case folding as far as it can lead to ASCII letters: `ſ` (U+017F) and the Kelvin sign (U+212A) do.
fn folded(name: &str) -> impl Iterator<Item = char> {
    name.chars().map(|c| match c {
        '\u{17F}' => 's',
        '\u{212A}' => 'k',
        _ => c.to_ascii_lowercase(),
    })
}

fn type_id(at: usize) -> TypeId {
    TypeId(u16::try_from(at).expect("a release has under 2000 types"))
}

/// Definitional resources: they say what other resources may contain and are about no person. Their ids and canonical
/// URLs stay as they are, in URLs too (design §4): profiles, questionnaires and code systems are found by them.
///
/// In the list is what has a canonical `url` in some release and cannot name a patient. Not in it, though they have a
/// `url`: Contract (has `subject`), Device and DeviceDefinition (the `url` of a product), Composition, EvidenceReport and
/// ResearchStudy (say whom they are about or who takes part). Whatever is not listed is treated as being about someone.
pub fn definitional(resource_type: &str) -> bool {
    DEFINITIONAL.binary_search(&resource_type).is_ok()
}

const DEFINITIONAL: [&str; 37] = [
    "ActivityDefinition",
    "ActorDefinition",
    "CapabilityStatement",
    "ChargeItemDefinition",
    "Citation",
    "CodeSystem",
    "CompartmentDefinition",
    "ConceptMap",
    "ConditionDefinition",
    "EffectEvidenceSynthesis",
    "EventDefinition",
    "Evidence",
    "EvidenceVariable",
    "ExampleScenario",
    "GraphDefinition",
    "ImplementationGuide",
    "Library",
    "Measure",
    "MessageDefinition",
    "NamingSystem",
    "ObservationDefinition",
    "OperationDefinition",
    "PlanDefinition",
    "Questionnaire",
    "Requirements",
    "ResearchDefinition",
    "ResearchElementDefinition",
    "RiskEvidenceSynthesis",
    "SearchParameter",
    "SpecimenDefinition",
    "StructureDefinition",
    "StructureMap",
    "SubscriptionTopic",
    "TerminologyCapabilities",
    "TestPlan",
    "TestScript",
    "ValueSet",
];

/// One line of a table (the head of the file says the columns).
struct Row<'a> {
    path: &'static str,
    types: &'a str,
    required: bool,
    many: bool,
    targets: &'static [&'static str],
}

/// Reads a table that is compiled in. It is ours: a mistake in it is a bug, found by every test, not an error of a caller.
fn read(release: Release, table: &'static str) -> Schema {
    let mut bases: Vec<(&'static str, &'static str)> = Vec::new();
    let mut rows: Vec<Row<'static>> = Vec::new();
    for line in table.lines().filter(|line| !line.starts_with('#')) {
        let columns: Vec<&'static str> = line.split('\t').collect();
        match columns[..] {
            [name, base] => bases.push((name, base)),
            [path, types, min, max, targets] => rows.push(Row {
                path,
                types,
                required: min == "1",
                many: max == "*",
                targets: match targets {
                    "" | "Resource" => &[],
                    _ => leak(targets.split('|').collect()),
                },
            }),
            _ => panic!("a line of a table has 2 or 5 columns"),
        }
    }
    // Own rows per parent, in table order. Both lists are searched by name below.
    bases.sort_unstable();
    rows.sort_by_key(|row| split(row.path));

    let backbones = rows.iter().filter(|row| is_backbone(row)).map(|row| row.path);
    let concrete = bases.iter().map(|(name, _)| *name).filter(|name| !ABSTRACT.contains(name));
    let mut names: Vec<&'static str> = concrete.chain(backbones).collect();
    names.sort_unstable();

    let tables = Tables { bases, rows, names };
    let types: Vec<TypeDef> = tables.names.iter().map(|name| tables.definition(name)).collect();
    let by_name = types.iter().enumerate().map(|(at, definition)| (definition.name, type_id(at))).collect();
    Schema { release, types, by_name }
}

struct Tables {
    bases: Vec<(&'static str, &'static str)>,
    rows: Vec<Row<'static>>,
    names: Vec<&'static str>,
}

impl Tables {
    fn base(&self, name: &str) -> &'static str {
        let at =
            self.bases.binary_search_by(|(other, _)| (*other).cmp(name)).expect("every base is a type of the table");
        self.bases[at].1
    }

    fn own(&self, parent: &str) -> &[Row<'static>] {
        let from = self.rows.partition_point(|row| split(row.path).0 < parent);
        let to = self.rows.partition_point(|row| split(row.path).0 <= parent);
        &self.rows[from..to]
    }

    fn definition(&self, name: &'static str) -> TypeDef {
        let mut lineage = Vec::new(); // the bases that lend their elements, nearest first
        let mut base = match split(name) {
            ("", _) => self.base(name),
            (parent, _) => {
                self.own(parent).iter().find(|row| row.path == name).expect("a backbone element is a row").types
            }
        };
        while !base.is_empty() {
            lineage.push(base);
            base = self.base(base);
        }
        let category = match (split(name), lineage.contains(&"Resource")) {
            ((parent, _), _) if !parent.is_empty() => Category::Backbone,
            (_, true) => Category::Resource,
            (_, false) => Category::Datatype,
        };
        let mut elements = Vec::new();
        for parent in std::iter::once(name).chain(lineage) {
            for row in self.own(parent) {
                self.expand(row, &mut elements);
            }
        }
        elements.sort_unstable_by_key(|element: &Element| element.name);
        TypeDef { name, category, elements }
    }

    fn expand(&self, row: &Row<'static>, elements: &mut Vec<Element>) {
        let (_, declared) = split(row.path);
        for type_name in row.types.split('|') {
            let name = match declared.strip_suffix("[x]") {
                None => declared,
                Some(stem) => leak_text(stem, type_name),
            };
            let kind = match type_name {
                // Releases declare the two ids variously. Ids of resources follow the grammar of `id` (resource.html#id);
                // ids inside resources are any text (element.html#id).
                _ if row.path == "Resource.id" => Kind::Primitive(Primitive::Id),
                _ if row.path == "Element.id" => Kind::Primitive(Primitive::String),
                "Resource" => Kind::Resource,
                "Element" | "BackboneElement" => self.complex(row.path),
                _ => match (type_name.strip_prefix('#'), Primitive::named(type_name)) {
                    (Some(path), _) => self.complex(path),
                    (None, Some(primitive)) => Kind::Primitive(primitive),
                    (None, None) => self.complex(type_name),
                },
            };
            let refers = matches!(type_name, "Reference" | "CodeableReference" | "canonical");
            let targets = if refers { row.targets } else { &[] };
            elements.push(Element { name, declared, kind, required: row.required, many: row.many, targets });
        }
    }

    fn complex(&self, name: &str) -> Kind {
        Kind::Complex(type_id(self.names.binary_search(&name).expect("every type of a table has a row")))
    }
}

/// `Patient.contact.name` → (`Patient.contact`, `name`); a type has no parent.
fn split(path: &'static str) -> (&'static str, &'static str) {
    path.rsplit_once('.').unwrap_or(("", path))
}

fn is_backbone(row: &Row<'_>) -> bool {
    matches!(row.types, "Element" | "BackboneElement")
}

/// `value` and `dateTime` → `valueDateTime`. Lives as long as the program, like the tables: made once per release.
fn leak_text(stem: &str, type_name: &str) -> &'static str {
    let (first, rest) = type_name.split_at(1);
    format!("{stem}{}{rest}", first.to_ascii_uppercase()).leak()
}

fn leak(names: Vec<&'static str>) -> &'static [&'static str] {
    names.leak()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn element(path: &str) -> Option<Element> {
        let schema = Schema::of(Release::R4);
        let (type_name, key) = path.rsplit_once('.')?;
        schema.element(schema.type_named(type_name)?, key).cloned()
    }

    #[track_caller]
    fn check(path: &str, kind: &str, required: bool, many: bool, targets: &[&str]) {
        let found = element(path).unwrap_or_else(|| panic!("{path} is not known"));
        let name = match found.kind {
            Kind::Primitive(primitive) => primitive.name(),
            Kind::Complex(id) => Schema::of(Release::R4).definition(id).name,
            Kind::Resource => "any resource",
        };
        assert_eq!((name, found.required, found.many, found.targets), (kind, required, many, targets), "{path}");
    }

    #[test]
    fn keys_lead_to_their_types() {
        check("Patient.id", "id", false, false, &[]);
        check("Patient.birthDate", "date", false, false, &[]);
        check("Patient.contact", "Patient.contact", false, true, &[]);
        check("Patient.contact.id", "string", false, false, &[]);
        check("Patient.contact.name", "HumanName", false, false, &[]);
        check("Patient.contact.modifierExtension", "Extension", false, true, &[]);
        check("Patient.contained", "any resource", false, true, &[]);
        check("Patient.link.other", "Reference", true, false, &["Patient", "RelatedPerson"]);
        check("Bundle.entry.resource", "any resource", false, false, &[]);
        check("Bundle.entry.link", "Bundle.link", false, true, &[]);
        check("Binary.securityContext", "Reference", false, false, &[]);
        check("Coverage.payor", "Reference", true, true, &["Organization", "Patient", "RelatedPerson"]);
        check("Extension.valueBase64Binary", "base64Binary", false, false, &[]);
        check("Extension.url", "uri", true, false, &[]);
        check("MedicationRequest.medicationReference", "Reference", true, false, &["Medication"]);
        check("MedicationRequest.medicationCodeableConcept", "CodeableConcept", true, false, &[]);
        check("MoneyQuantity.value", "decimal", false, false, &[]);
        check("Age.comparator", "code", false, false, &[]);
        check("Narrative.div", "xhtml", true, false, &[]);
        check("Parameters.parameter.part", "Parameters.parameter", false, true, &[]);
        check("QuestionnaireResponse.item.answer.item", "QuestionnaireResponse.item", false, true, &[]);
        check("Timing.repeat.boundsPeriod", "Period", false, false, &[]);
        check("Dosage.modifierExtension", "Extension", false, true, &[]);
    }

    #[test]
    fn what_the_release_does_not_define_is_not_known() {
        for path in [
            "Patient.Id",
            "Patient.resourceType",
            "Patient._birthDate",
            "Patient.deceased[x]",
            "Patient.deceased",
            "Patient.valueString",
            "Timing.repeat.modifierExtension",
            "HumanName.modifierExtension",
            "Binary.text",
            "Bundle.contained",
            "Element.id",
            "Patient.",
        ] {
            assert_eq!(element(path), None, "{path}");
        }
        let schema = Schema::of(Release::R4);
        for name in ["", "patient", "Resource", "DomainResource", "HumanName", "Patient.contact", "string"] {
            assert_eq!(schema.resource(name), None, "{name}");
        }
    }

    #[test]
    fn a_choice_is_one_declared_element() {
        let schema = Schema::of(Release::R4);
        let patient = schema.resource("Patient").unwrap();
        let names: Vec<_> = schema.declared(patient, "deceased").map(|element| element.name).collect();
        assert_eq!(names, ["deceasedBoolean", "deceasedDateTime"]);
        assert_eq!(schema.declared(patient, "birthDate").count(), 1);
        assert_eq!(schema.declared(patient, "deceasedBoolean").count(), 0);
    }

    #[test]
    fn keys_that_differ_by_case_only_are_seen() {
        let schema = Schema::of(Release::R4);
        let patient = schema.resource("Patient").unwrap();
        for (key, expected) in [
            ("birthDate", false),
            ("birthdate", true),
            ("BIRTHDATE", true),
            ("addre\u{17F}s", true),
            ("\u{212A}ey", false),
            ("resourcetype", true),
            ("unheard", false),
        ] {
            assert_eq!(schema.near_miss(patient, key), expected, "{key}");
        }
    }

    #[test]
    fn every_release_is_whole() {
        for (release, resources) in [(Release::R4, 146), (Release::R4b, 141), (Release::R5, 158)] {
            let schema = Schema::of(release);
            let found = schema.types().filter(|(_, definition)| definition.category == Category::Resource).count();
            assert_eq!(found, resources, "{}", release.name());
            for (id, definition) in schema.types() {
                assert_eq!(schema.type_named(definition.name), Some(id));
                assert!(definition.elements.is_sorted_by(|a, b| a.name < b.name), "{}: a key twice", definition.name);
                assert!(schema.element(id, "id").is_some(), "{}", definition.name);
            }
        }
    }

    #[test]
    fn definitional_resources_have_a_url_and_name_no_patient() {
        assert!(DEFINITIONAL.is_sorted());
        for name in DEFINITIONAL {
            let mut known = false;
            for release in [Release::R4, Release::R4b, Release::R5] {
                let schema = Schema::of(release);
                let Some(id) = schema.resource(name) else { continue };
                known |= schema.element(id, "url").is_some();
                for element in &schema.definition(id).elements {
                    assert!(!element.targets.contains(&"Patient"), "{name}.{}", element.name);
                }
            }
            assert!(known, "{name}");
        }
        for name in ["Patient", "Contract", "Device", "Group", "ResearchStudy", "TestReport", "questionnaire", ""] {
            assert!(!definitional(name), "{name}");
        }
    }
}
