//! The reference in docs/ held to the code: generated pages are rendered again and compared, the tables of the others must have
//! the names that the code has, and every example goes through the decoders.
//!
//! `RESAGA_UPDATE_DOCS=1 cargo test --test docs` writes what can be written. Each page asks one public function of the library.

mod cli;
mod codes;
mod configuration;
mod http;
mod metrics;
mod pages;
mod records;
