//! Stub: the room that other hands are writing.
/// All epochs of the key.
pub struct Keyring;
impl Keyring {
    /// Reads a keyring file's text.
    pub fn parse(text: &str) -> Result<Keyring, Vec<String>> {
        if text.contains("kind: Keyring") { Ok(Keyring) } else { Err(vec!["this is not a keyring".into()]) }
    }
}
