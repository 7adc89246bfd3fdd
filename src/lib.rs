//! nodens: NodeLocal DNSCache in Rust.
//!
//! The folders are layers, bottom first; each names only those below it. ARCHITECTURE.md says
//! what each one is and never does, and `tests/architecture.rs` holds it.
#![warn(missing_docs)]

pub mod dns;

pub mod corefile;

pub mod metrics;

pub mod sys;

pub mod plugin;

pub mod engine;

pub mod net;

pub mod node;

pub mod admin;

pub mod app;

pub mod cli;
