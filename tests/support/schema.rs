//! What a leaf of a FHIR document is to an independent reader of the specification: kept, identity, a URL with identity in
//! it, or a date. From `tables/elements_*.tsv` (the release's elements) and `tables/phi_rules_*.tsv` (HIPAA, path by path).
//!
//! Nothing here is the product's: neither its tables nor its packs. Where the tables leave the choice to a pack ("keep|redact"),
//! the leaf counts as kept, so that this view never calls an honest pack a leak; what it calls identity, no pack may let through.

use super::json::Node;
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

/// What may happen to a leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The pack may keep it.
    Kept,
    /// It identifies somebody; it may not be seen outside.
    Identity,
    /// A reference or URL: some of its parts identify.
    Url,
    /// A date of the subject: it must move.
    Date,
    /// A time of a server: may be kept, coarsened or removed, is never shifted (design §4).
    ServerTime,
}

/// The elements of the release and the verdict of the HIPAA table.
pub struct Schema {
    /// `Patient.name` to its types; choices expanded (`Observation.valueQuantity`).
    elements: HashMap<String, Element>,
    /// Path (choices as `value[x]`) to default action.
    actions: HashMap<String, String>,
    resources: HashSet<String>,
}

#[derive(Clone)]
struct Element {
    /// As the tables write it, `value[x]` for a choice.
    declared: String,
    ty: String,
}

/// Where in the element tree a value stands.
#[derive(Debug, Clone)]
pub struct Place {
    /// Full generic path from the resource: `Patient.name.family`.
    pub path: String,
    /// Path within the innermost type: `HumanName.family`.
    pub declared: String,
    /// The type: `string`, `HumanName`, `BackboneElement`, or a resource type; empty where the release has no such element.
    pub ty: String,
    /// The innermost resource's type.
    pub resource: String,
    /// How many containers the resource is in by way of `contained`.
    pub contained: bool,
}

/// Code systems whose displays are words of a standard, not of a clerk.
const STANDARD: &[&str] = &[
    "http://hl7.org/",
    "http://terminology.hl7.org/",
    "http://snomed.info/",
    "http://loinc.org",
    "http://unitsofmeasure.org",
    "http://www.nlm.nih.gov/research/umls/rxnorm",
    "http://dicom.nema.org/",
    "urn:oid:2.16.840.1.113883.6.",
    "urn:iso:",
    "urn:ietf:",
    "https://bluebutton.cms.gov/",
    "http://nucc.org/",
    "http://www.nubc.org/",
    "http://www.ada.org/",
    "http://ihe.net/",
    "http://www.genenames.org",
    "http://www.whocc.no/atc",
    "http://varnomen.hgvs.org",
    "http://www.cms.gov/",
    "https://www.cms.gov/",
    "http://www.ama-assn.org/",
    "http://acr.org",
    "http://standardterms.edqm.eu",
    "http://fdasis.nlm.nih.gov",
    "urn:oid:1.2.840.10008.",
];

/// Elements that the HIPAA table calls free text and every pack may keep: units of measure.
const KEPT_ANYWAY: &[&str] =
    &["Quantity.unit", "Age.unit", "Count.unit", "Distance.unit", "Duration.unit", "Money.unit", "SimpleQuantity.unit"];

/// URIs that are about a person or a machine of theirs.
const PERSONAL_URIS: &[&str] = &[
    "Attachment.url",
    "Meta.source",
    "Endpoint.address",
    "Subscription.channel.endpoint",
    "Subscription.endpoint",
    "Device.url",
];

/// Resources that define rather than record; their ids are names that everybody may know (design §4).
pub const DEFINITIONAL: &[&str] = &[
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

impl Schema {
    /// The tables of R4 in the shared folder, or `None` where it is absent.
    pub fn shared() -> Option<Schema> {
        Schema::of("r4")
    }

    /// The tables of a release: `r4`, `r4b`, `r5`.
    pub fn of(release: &str) -> Option<Schema> {
        let tables = super::corpora::shared()?.join("tables");
        let read = |name: String| std::fs::read_to_string(tables.join(name)).expect("a table of the shared folder");
        let (elements, rules) = (read(format!("elements_{release}.tsv")), read(format!("phi_rules_{release}.tsv")));
        Some(Schema::parse(&elements, &rules))
    }

    /// Both tables as text.
    pub fn parse(elements: &str, rules: &str) -> Schema {
        let mut schema = Schema { elements: HashMap::new(), actions: HashMap::new(), resources: HashSet::new() };
        for line in elements.lines().filter(|l| !l.starts_with('#')) {
            let mut columns = line.split('\t');
            let (Some(path), Some(types)) = (columns.next(), columns.next()) else { continue };
            if path.ends_with(".implicitRules") {
                schema.resources.insert(path.split('.').next().unwrap_or("").to_owned());
            }
            match path.strip_suffix("[x]") {
                None => {
                    schema
                        .elements
                        .insert(path.to_owned(), Element { declared: path.to_owned(), ty: types.to_owned() });
                }
                Some(stem) => {
                    for ty in types.split('|') {
                        let (head, tail) = ty.split_at(1);
                        let name = format!("{stem}{}{tail}", head.to_uppercase());
                        schema.elements.insert(name, Element { declared: path.to_owned(), ty: ty.to_owned() });
                    }
                }
            }
        }
        for line in rules.lines().filter(|l| !l.starts_with('#')) {
            let columns: Vec<&str> = line.split('\t').collect();
            if columns.len() >= 5 {
                schema.actions.insert(columns[0].to_owned(), columns[4].to_owned());
            }
        }
        schema
    }

    /// Whether the release has a resource of that name.
    pub fn is_resource(&self, name: &str) -> bool {
        self.resources.contains(name) && !matches!(name, "Resource" | "DomainResource")
    }

    /// The place of a document's root.
    pub fn root(&self, node: &Node) -> Place {
        self.resource_place(node, String::new(), false)
    }

    fn resource_place(&self, node: &Node, at: String, contained: bool) -> Place {
        let ty = node.get("resourceType").and_then(|n| n.text()).unwrap_or_default().into_owned();
        let path = if at.is_empty() { ty.clone() } else { format!("{at}({ty})") };
        Place { path, declared: ty.clone(), ty: ty.clone(), resource: ty, contained }
    }

    /// The place of member `name` with value `value` in an object at `place`. Twins (`_x`) are elements: `id` and `extension`.
    pub fn step(&self, place: &Place, name: &str, value: &Node) -> Place {
        let base = match place.ty.as_str() {
            "BackboneElement" | "Element" => place.declared.clone(),
            other => other.strip_prefix('#').unwrap_or(other).to_owned(),
        };
        let path = format!("{}.{name}", place.path);
        if let Some(stem) = name.strip_prefix('_') {
            return Place {
                path,
                declared: format!("{base}._{stem}"),
                ty: "Element_".into(),
                resource: place.resource.clone(),
                contained: place.contained,
            };
        }
        let base = if base == "Element_" { "Element".to_owned() } else { base };
        let Some(element) = self.elements.get(&format!("{base}.{name}")) else {
            let ty = if name == "resourceType" { "code" } else { "" };
            return Place {
                path,
                declared: format!("{base}.{name}"),
                ty: ty.into(),
                resource: place.resource.clone(),
                contained: place.contained,
            };
        };
        if element.ty == "Resource" {
            // An array of resources gives its place per item, see `each`.
            return match value {
                Node::Object(_) => self.resource_place(value, path, place.contained || name == "contained"),
                _ => Place {
                    path,
                    declared: element.declared.clone(),
                    ty: "Resource".into(),
                    resource: String::new(),
                    contained: place.contained || name == "contained",
                },
            };
        }
        Place {
            path,
            declared: element.declared.clone(),
            ty: element.ty.clone(),
            resource: place.resource.clone(),
            contained: place.contained,
        }
    }

    /// The place of one item of an array at `place`.
    pub fn item(&self, place: &Place, item: &Node) -> Place {
        if place.ty == "Resource" {
            self.resource_place(item, place.path.clone(), place.contained)
        } else {
            place.clone()
        }
    }

    /// What a leaf is. `parent` is the object it stands in.
    pub fn kind(&self, place: &Place, parent: &Node) -> Kind {
        let sibling = |name: &str| parent.get(name).and_then(|n| n.text()).unwrap_or_default();
        let declared = place.declared.as_str();
        let ty = place.ty.as_str();
        if declared == format!("{}.id", place.resource) {
            let open = place.contained || DEFINITIONAL.contains(&place.resource.as_str());
            return if open { Kind::Kept } else { Kind::Identity };
        }
        if DEFINITIONAL.contains(&place.resource.as_str()) && !matches!(ty, "date" | "dateTime" | "instant") {
            return Kind::Kept;
        }
        match declared {
            "Reference.reference"
            | "Bundle.entry.fullUrl"
            | "Bundle.entry.request.url"
            | "Bundle.entry.request.ifNoneExist"
            | "Bundle.entry.response.location"
            | "Bundle.link.url"
            | "Subscription.criteria" => return Kind::Url,
            "Meta.lastUpdated"
            | "Bundle.timestamp"
            | "Bundle.entry.request.ifModifiedSince"
            | "Bundle.entry.response.lastModified" => return Kind::ServerTime,
            "Coding.display" => {
                let system = sibling("system");
                return if STANDARD.iter().any(|s| system.starts_with(s)) { Kind::Kept } else { Kind::Identity };
            }
            "Extension.value[x]" if matches!(sibling("url").as_ref(), "latitude" | "longitude") => {
                return Kind::Identity;
            }
            _ if KEPT_ANYWAY.contains(&declared) => return Kind::Kept,
            _ if PERSONAL_URIS.contains(&declared) => return Kind::Identity,
            _ => {}
        }
        let action = self.actions.get(declared).map(String::as_str).unwrap_or("");
        let by_type = action.starts_with("by type") || action.starts_with("recurse by type");
        match ty {
            "date" | "dateTime" | "instant" => Kind::Date,
            "xhtml" | "base64Binary" => Kind::Identity,
            "uri" | "url" | "uuid" | "oid" if by_type => Kind::Identity,
            "string" | "markdown" => {
                let redacted = by_type || action.contains("string:redact") || action.starts_with("redact string");
                let plain = ["redact", "pseudonym", "zip3", "drop", "token-scan", "policy"]
                    .iter()
                    .any(|a| action.starts_with(a));
                if redacted || (plain && !action.contains("keep")) { Kind::Identity } else { Kind::Kept }
            }
            "decimal" | "integer" | "unsignedInt" | "positiveInt" if action == "redact" => Kind::Identity,
            "" => Kind::Identity,
            _ => Kind::Kept,
        }
    }

    /// Calls `visit` for each leaf of a document that is not `null`.
    pub fn leaves<'n, 'a>(&self, node: &'n Node<'a>, visit: &mut dyn FnMut(&Place, Kind, &'a str)) {
        self.descend(&self.root(node), node, node, visit);
    }

    fn descend<'n, 'a>(
        &self,
        place: &Place,
        parent: &'n Node<'a>,
        node: &'n Node<'a>,
        visit: &mut dyn FnMut(&Place, Kind, &'a str),
    ) {
        match node {
            Node::Object(members) => {
                for member in members {
                    self.descend(&self.step(place, &member.name, &member.value), node, &member.value, visit);
                }
            }
            Node::Array(items) => {
                for item in items {
                    self.descend(&self.item(place, item), parent, item, visit);
                }
            }
            Node::Scalar("null") => {}
            Node::Scalar(raw) => visit(place, self.kind(place, parent), raw),
        }
    }

    /// A URL in its parts, in order: text, and whether it identifies.
    pub fn url_parts<'t>(&self, url: &'t str) -> Vec<(Cow<'t, str>, bool)> {
        if url.starts_with('#') {
            return vec![(url.into(), false)];
        }
        if url.starts_with("urn:") {
            let cut = url.rfind(':').map_or(0, |at| at + 1);
            return vec![(url[..cut].into(), false), (url[cut..].into(), true)];
        }
        let (path, query) = url.split_once('?').map_or((url, None), |(p, q)| (p, Some(q)));
        let mut parts: Vec<(Cow<'t, str>, bool)> = Vec::new();
        let mut previous = "";
        let mut found = false;
        let segments: Vec<&str> = path.split('/').collect();
        for (index, segment) in segments.iter().enumerate() {
            let after_type = self.is_resource(previous) && !segment.is_empty() && !segment.starts_with(['$', '_']);
            let lonely = segments.len() == 1 && !self.is_resource(segment) && query.is_none();
            let identity = (after_type && !DEFINITIONAL.contains(&previous)) || lonely;
            found |= after_type || lonely || self.is_resource(segment);
            if index > 0 {
                parts.push(("/".into(), false));
            }
            parts.push(((*segment).into(), identity));
            previous = segment;
        }
        if !found {
            // Neither our grammar nor a resource type: a foreign address. Host and scheme say nothing of a person, the last segment may.
            if let Some(last) = parts.iter_mut().rfind(|(text, _)| text.len() > 1) {
                last.1 = true;
            }
        }
        for pair in query.into_iter().flat_map(|q| q.split('&')) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            parts.push((format!("?{name}=").into(), false));
            let value = percent_decoded(value);
            let open = (name.starts_with('_') && name != "_id")
                || matches!(name, "status" | "code" | "category" | "type" | "class");
            let cut = value.rfind('|').map_or(0, |at| at + 1);
            parts.push((value[..cut].to_owned().into(), false));
            match value[cut..].split_once('/') {
                Some((ty, id)) if self.is_resource(ty) => {
                    parts.push((format!("{ty}/").into(), false));
                    parts.push((id.to_owned().into(), true));
                }
                _ => parts.push((value[cut..].to_owned().into(), !open)),
            }
        }
        parts
    }
}

/// Undoes percent-encoding wherever a `%` is followed by two hex digits.
pub fn percent_decoded(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return Cow::Borrowed(text);
    }
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let code = bytes
            .get(at + 1..at + 3)
            .and_then(|d| std::str::from_utf8(d).ok())
            .filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()));
        match code {
            Some(digits) if bytes[at] == b'%' => {
                out.push(u8::from_str_radix(digits, 16).expect("two hex digits"));
                at += 3;
            }
            _ => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    Cow::Owned(String::from_utf8_lossy(&out).into_owned())
}
