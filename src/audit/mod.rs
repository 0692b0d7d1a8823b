//! The record of who saw whom: one JSON line per released batch, each chained to the one before.
//!
//! This room makes lines and checks them; writing them durably *before* revealed bytes leave is the shell's duty (design §1.5).
//! A line holds names that configuration gave and keyed handles, never a value. The chain is not keyed: it shows what was changed,
//! removed or reordered by a hand that did not recompute every later line, and it cannot show that the newest lines are
//! missing. Against both stand checkpoints of [`Chain::head`], kept where that hand cannot reach.

mod chain;
mod record;
mod verify;

pub use chain::{Chain, ResumeError};
pub use record::{Outcome, Record};
pub use verify::{Break, Fault, verify};
