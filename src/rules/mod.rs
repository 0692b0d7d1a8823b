//! Stub: the room that other hands are writing.
/// Rules as meant.
pub struct Compiled {
    lossy: bool,
}
impl Compiled {
    /// Rules for tests.
    pub fn stub(lossy: bool) -> Compiled {
        Compiled { lossy }
    }
    /// Whether these rules lose data.
    pub fn lossy(&self) -> bool {
        self.lossy
    }
}
