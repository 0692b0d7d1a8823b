//! `mask` and `substitute`: text that says nothing of the value, or no more than its last characters.
//!
//! `mask: { with: "..." }` is a fixed text. `mask: { char, keep_last }` writes one character for each and so tells the length; it keeps
//! the last characters only where at least as many are covered, else a short value would be shown nearly whole. It cannot fail.

use crate::secret::Phi;

/// The parameters of `mask`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mask {
    /// This text, whatever the value is.
    With(String),
    /// This character for each, but for the last.
    Characters {
        /// Usually `*`.
        cover: char,
        /// So many stay, where at least as many are covered.
        keep_last: usize,
    },
}

/// The masked text.
pub fn mask(mask: &Mask, phi: &Phi<'_>) -> String {
    match mask {
        Mask::With(text) => text.clone(),
        Mask::Characters { cover, keep_last } => {
            // Exposed: only the characters that the rule keeps are copied.
            let value = phi.expose();
            let length = value.chars().count();
            let kept = if length >= 2 * keep_last { *keep_last } else { 0 };
            let covered = length - kept;
            std::iter::repeat_n(*cover, covered).chain(value.chars().skip(covered)).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_show_no_more_than_they_keep() {
        let last = |keep_last| Mask::Characters { cover: '*', keep_last };
        for (rule, value, expected) in [
            (last(0), "Ng", "**"),
            (last(4), "123456789", "*****6789"),
            (last(4), "12345678", "****5678"),
            (last(4), "1234567", "*******"),
            (last(4), "", ""),
            (last(1), "Zoë", "**ë"),
            (Mask::With("withheld".into()), "Ng", "withheld"),
        ] {
            assert_eq!(mask(&rule, &Phi::new(value)), expected, "{value}");
        }
    }
}
