//! One route's rules and keys, bound together: immutable, shared by all its exchanges without a lock.

use super::spare::Pool;
use crate::action::fpe::Keyed;
use crate::fhir::{self, Category};
use crate::names::{ByWord, Class, Domain, EpochId};
use crate::policy::Permit;
use crate::rules::{Compiled, Method};
use crate::token::{ClassKeys, DomainKeys, Keyring, Mac, MacPurpose};

/// What happens to ids that do not fit a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Overflow {
    /// The message is refused, with advice.
    #[default]
    Refuse,
    /// A keyed hash takes the id's place: one way, the same everywhere in the domain.
    Hash,
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
    /// Coming back, tokens of old epochs become tokens of the epoch that is written with, and nothing is revealed.
    pub rewraps: bool,
    /// The untrusted side calls in: what comes back is its requests, and what does not resolve in them is refused.
    pub calls_in: bool,
}

/// Rules and keys of one route.
pub struct Engine {
    pub(super) rules: Compiled,
    pub(super) keys: DomainKeys,
    /// By `ClassIx`.
    pub(super) classes: Vec<ClassKeys>,
    /// By resource type; types whose ids stay have none.
    pub(super) ids: ByWord<ClassKeys>,
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
    /// Hashes of scope `domain`.
    pub(super) hash: Mac,
    /// Noise.
    pub(super) perturb: Mac,
    /// By index of the method; `None` where it is not `fpe`.
    pub(super) fpe: Vec<Option<Keyed>>,
    pub(super) bases: Vec<Base>,
    pub(super) refuse_updates: bool,
    pub(super) rewraps: bool,
    pub(super) calls_in: bool,
    pub(super) overflow: Option<Mac>,
    /// Empty buffers for bodies to come.
    pub(super) spares: Pool,
}

impl Engine {
    /// Binds rules to the keys of a domain. The error names what is wrong with the choice of keys.
    pub fn new(rules: Compiled, keyring: &Keyring, domain: &Domain, options: Options) -> Result<Engine, String> {
        let keys = keyring.domain(domain, options.id_epoch).map_err(|e| e.to_string())?;
        let class = |name: &str| Class::new(name).expect("a class of ours has the form of a name");
        let schema = rules.schema();
        let plain = rules.plain.is_some(); // knows no resource types
        let about_someone = |d: &fhir::TypeDef| d.category == Category::Resource && !fhir::definitional(d.name);
        let types = schema.types().filter(|(_, d)| !plain && about_someone(d));
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
            // Apart, so that no upstream can have a link made that a caller outside may follow.
            links: keys.class(&class(if options.calls_in { "link.outside" } else { "link" }), false),
            uuid_class: class("urn:uuid"),
            shift: keys.mac(MacPurpose::Shift),
            hash: keys.mac(MacPurpose::Hash),
            perturb: keys.mac(MacPurpose::Perturb),
            fpe: rules
                .methods
                .iter()
                .map(|method| match method {
                    Method::Fpe { class, alphabet } => Some(Keyed::new(&keys.fpe_key(class), alphabet.clone())),
                    _ => None,
                })
                .collect(),
            bases,
            refuse_updates: options.refuse_updates,
            rewraps: options.rewraps,
            calls_in: options.calls_in,
            overflow: (options.overflow == Overflow::Hash).then(|| keys.mac(MacPurpose::Overflow)),
            rules,
            keys,
            spares: Pool::default(),
        })
    }

    /// The rules.
    pub fn rules(&self) -> &Compiled {
        &self.rules
    }

    /// What happens to ids that do not fit a token.
    pub fn overflow(&self) -> Overflow {
        if self.overflow.is_some() { Overflow::Hash } else { Overflow::Refuse }
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
