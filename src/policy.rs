//! Who may see what: grants are decided once per exchange, and the decision is a [`Permit`].
//!
//! A `Permit` is minted only here. It is not `Clone` and has no public field, so code that reveals can only do so
//! for the caller and exchange for which policy said yes. Default: a token stays a token.

use crate::names::{Caller, Class, Purpose};
use std::collections::BTreeMap;

/// How a class is shown to a caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reveal {
    /// The value itself.
    Plain,
    /// The token stays: an explicit denial, which wins over every `Plain`.
    Token,
}

/// One grant, as meant: these callers, on these routes, for these purposes, may see these classes so.
#[derive(Debug, Clone)]
pub struct Grant {
    /// Callers by name.
    pub callers: Vec<Caller>,
    /// Routes by name; empty means every route.
    pub routes: Vec<String>,
    /// Purposes; empty means that none need be stated.
    pub purposes: Vec<Purpose>,
    /// Class to form of reveal. `None` stands for every class that no entry names.
    pub classes: BTreeMap<Option<Class>, Reveal>,
}

/// All grants of a configuration.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    grants: Vec<Grant>,
}

/// Proof that policy decided on this caller for one exchange. Threaded by reference to wherever a value is revealed.
#[derive(Debug)]
pub struct Permit {
    caller: Caller,
    purpose: Option<Purpose>,
    classes: BTreeMap<Class, Reveal>,
    others: Reveal,
}

impl Policy {
    /// Grants in any order: they add up, and an explicit `token` wins.
    pub fn new(grants: Vec<Grant>) -> Self {
        Policy { grants }
    }

    /// The one place where a caller's permit for an exchange is made. `None`: nothing may be revealed.
    pub fn permit(&self, caller: &Caller, route: &str, purpose: Option<&Purpose>) -> Option<Permit> {
        let mut permit = Permit {
            caller: caller.clone(),
            purpose: purpose.cloned(),
            classes: BTreeMap::new(),
            others: Reveal::Token,
        };
        let mut denied_others = false;
        let applies = |g: &&Grant| {
            g.callers.contains(caller)
                && (g.routes.is_empty() || g.routes.iter().any(|r| r == route))
                && (g.purposes.is_empty() || purpose.is_some_and(|p| g.purposes.contains(p)))
        };
        for grant in self.grants.iter().filter(applies) {
            for (class, &reveal) in &grant.classes {
                match class {
                    Some(class) => {
                        let entry = permit.classes.entry(class.clone()).or_insert(reveal);
                        if reveal == Reveal::Token {
                            *entry = Reveal::Token;
                        }
                    }
                    None if reveal == Reveal::Token => denied_others = true,
                    None => permit.others = Reveal::Plain,
                }
            }
        }
        if denied_others {
            permit.others = Reveal::Token;
        }
        let reveals = permit.others == Reveal::Plain || permit.classes.values().any(|&r| r == Reveal::Plain);
        reveals.then_some(permit)
    }
}

impl Permit {
    /// Whether this class may be shown in plain.
    pub fn allows(&self, class: &Class) -> bool {
        *self.classes.get(class).unwrap_or(&self.others) == Reveal::Plain
    }

    /// For whom it was minted.
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// For what purpose it was minted.
    pub fn purpose(&self) -> Option<&Purpose> {
        self.purpose.as_ref()
    }
}

/// Permits that no policy decided. The word stands at each place that takes one.
pub mod danger {
    use super::*;

    /// A permit for everything: whoever holds the key file on a command line can read every token anyway.
    pub fn key_holder(caller: Caller, purpose: Option<Purpose>) -> Permit {
        Permit { caller, purpose, classes: BTreeMap::new(), others: Reveal::Plain }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(caller: &str, class: Option<&str>, reveal: Reveal) -> Grant {
        Grant {
            callers: vec![Caller::new(caller).unwrap()],
            routes: vec![],
            purposes: vec![],
            classes: [(class.map(|c| Class::new(c).unwrap()), reveal)].into(),
        }
    }

    #[test]
    fn a_denial_wins_and_silence_is_denial() {
        let policy = Policy::new(vec![
            grant("ward", None, Reveal::Plain),
            grant("ward", Some("mrn"), Reveal::Token),
            grant("lab", Some("mrn"), Reveal::Token),
        ]);
        let ward = policy.permit(&Caller::new("ward").unwrap(), "r", None).unwrap();
        assert!(ward.allows(&Class::new("Patient.id").unwrap()));
        assert!(!ward.allows(&Class::new("mrn").unwrap()));
        assert!(policy.permit(&Caller::new("lab").unwrap(), "r", None).is_none());
        assert!(policy.permit(&Caller::new("stranger").unwrap(), "r", None).is_none());
    }
}
