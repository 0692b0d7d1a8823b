//! stub

pub mod client;
pub mod cloud;
