//! What is done with values beyond tokens: today the shift of dates. Pure arithmetic on keyed hashes; knows no FHIR.

pub mod shift;
