//! Codes that searches name without their system: `category=laboratory`, `clinical-status=active`.
//!
//! A bare code may be one of a local system, and those do not cross in clear. These are words of HL7's own code systems (CC0; FHIR
//! terminologies of R4 and US Core's categories): whoever asks by one says nothing about anybody. Nothing here is complete: what is
//! missing is asked with its system.

/// Sorted.
const WORDS: [&str; 85] = [
    "ACUTE",
    "AMB",
    "AU",
    "BG",
    "BLB",
    "CG",
    "CH",
    "CP",
    "CT",
    "CTH",
    "CUS",
    "EC",
    "EMER",
    "EN",
    "FLD",
    "GE",
    "HH",
    "HM",
    "ICU",
    "IMG",
    "IMM",
    "IMP",
    "LAB",
    "MB",
    "MCB",
    "MYC",
    "NMR",
    "NMS",
    "NONAC",
    "NRS",
    "OBSENC",
    "OSL",
    "OTH",
    "OUS",
    "PAR",
    "PAT",
    "PF",
    "PHR",
    "PHY",
    "PRENC",
    "RAD",
    "RC",
    "RT",
    "RUS",
    "RX",
    "SP",
    "SR",
    "SS",
    "TX",
    "URN",
    "VR",
    "VUS",
    "XRC",
    "active",
    "activity",
    "assess-plan",
    "clinical-note",
    "community",
    "confirmed",
    "differential",
    "discharge",
    "encounter-diagnosis",
    "entered-in-error",
    "exam",
    "health-concern",
    "imaging",
    "inactive",
    "inpatient",
    "laboratory",
    "outpatient",
    "presumed",
    "problem-list-item",
    "procedure",
    "provisional",
    "recurrence",
    "refuted",
    "relapse",
    "remission",
    "resolved",
    "sdoh",
    "social-history",
    "survey",
    "therapy",
    "unconfirmed",
    "vital-signs",
];

/// Whether HL7 itself defines this code, whatever the element.
pub fn is_word(code: &str) -> bool {
    WORDS.binary_search(&code).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_found() {
        assert!(WORDS.is_sorted());
        assert!(is_word("vital-signs") && is_word("LAB") && !is_word("lab") && !is_word("smith"));
    }
}
