//! What the tests share: readers, checks and data of their own, apart from the product's code, so that both cannot be wrong alike.
//!
//! Each test file takes the parts it needs; the rest is unused there.
#![allow(dead_code, missing_docs)]

pub mod canary;
pub mod corpora;
pub mod inside;
pub mod json;
pub mod leak;
pub mod product;
pub mod roundtrip;
pub mod schema;
