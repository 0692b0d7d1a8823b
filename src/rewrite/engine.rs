//! One route's rules and keys, bound together: immutable, shared by all its exchanges without a lock.

use crate::fhir::{self, Category};
use crate::names::{Class, Domain, EpochId};
use crate::policy::Permit;
use crate::rules::Compiled;
use crate::token::{ClassKeys, DomainKeys, Keyring, Mac, MacPurpose};
use std::collections::HashMap;

/// What happens to ids that do not fit a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Overflow {
    /// The message is refused, with advice.
    #[default]
    Refuse,
}

/// An absolute FHIR base that is ours: how the trusted side spells it, and how the untrusted side does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Base {
    /// Without a trailing slash.
    pub trusted: String,
    /// Without a trailing slash.
    pub untrusted: String,
}

/// What a route adds to its rules.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Under which epoch ids are made; default: the lowest live one.
    pub id_epoch: Option<EpochId>,
    /// Ids that do not fit.
    pub overflow: Overflow,
    /// Absolute URLs below these are ours.
    pub bases: Vec<Base>,
    /// Refuse updates (`PUT`, `PATCH`) also where they stand in a batch or transaction: the rules lose data and the other side
    /// keeps the record (`lossy_update: refuse`).
    pub refuse_updates: bool,
}

/// Rules and keys of one route.
pub struct Engine {
    pub(super) rules: Compiled,
    pub(super) keys: DomainKeys,
    /// By `ClassIx`.
    pub(super) classes: Vec<ClassKeys>,
    /// By resource type; types whose ids stay have none.
    pub(super) ids: HashMap<&'static str, ClassKeys>,
    /// Ids of contained resources.
    pub(super) contained: ClassKeys,
    /// Whole URIs, and bases of systems that are not ours.
    pub(super) uris: ClassKeys,
    /// Seals.
    pub(super) seals: ClassKeys,
    /// Paging links of the untrusted side.
    pub(super) links: ClassKeys,
    /// The class of `urn:uuid:` pseudonyms, which carry no mark of their own.
    pub(super) uuid_class: Class,
    pub(super) shift: Mac,
    pub(super) bases: Vec<Base>,
    pub(super) refuse_updates: bool,
}

impl Engine {
    /// Binds rules to the keys of a domain. The error names what is wrong with the choice of keys.
    pub fn new(rules: Compiled, keyring: &Keyring, domain: &Domain, options: Options) -> Result<Engine, String> {
        let keys = keyring.domain(domain, options.id_epoch).map_err(|e| e.to_string())?;
        let class = |name: &str| Class::new(name).expect("a class of ours has the form of a name");
        let schema = rules.schema();
        let types = schema.types().filter(|(_, d)| d.category == Category::Resource && !fhir::definitional(d.name));
        let ids = types.map(|(_, d)| (d.name, keys.class(&class(&format!("{}.id", d.name)), true))).collect();
        let mut bases = options.bases;
        for base in &mut bases {
            base.trusted.truncate(base.trusted.trim_end_matches('/').len());
            base.untrusted.truncate(base.untrusted.trim_end_matches('/').len());
        }
        Ok(Engine {
            classes: rules.classes.iter().map(|c| keys.class(c, false)).collect(),
            ids,
            contained: keys.class(&class("contained.id"), true),
            uris: keys.class(&class("uri"), true),
            seals: keys.class(&class("seal"), false),
            links: keys.class(&class("link"), false),
            uuid_class: class("urn:uuid"),
            shift: keys.mac(MacPurpose::Shift),
            bases,
            refuse_updates: options.refuse_updates,
            rules,
            keys,
        })
    }

    /// The rules.
    pub fn rules(&self) -> &Compiled {
        &self.rules
    }

    /// The domain.
    pub fn domain(&self) -> &Domain {
        self.keys.domain()
    }

    /// A keyed name for something that may not be named: a subject in the audit, a file.
    pub fn handle(&self, text: &str) -> String {
        self.keys.handle(text)
    }

    /// Whether this caller may see anything of this class.
    pub(super) fn allows(&self, permit: Option<&Permit>, class: &Class) -> bool {
        permit.is_some_and(|p| p.allows(class))
    }
}
