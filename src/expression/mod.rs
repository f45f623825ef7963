//! Expressions: jq (by `jaq-core`) over JSON, so bounded that whatever others send may be evaluated.
//!
//! What may not end is refused before it runs ([`allowed`]), and functions are pure ([`functions`]). What ends is still bounded in
//! time and memory ([`budget`]): the values are our own ([`value`]) for that, and for the text of numbers and the order of
//! members. [`evaluator`] has the thread on which it runs. Must not know what an expression is for.

mod allowed;
mod budget;
mod compile;
mod evaluate;
mod evaluator;
mod functions;
mod number;
mod operators;
mod paths;
mod text;
mod value;

pub use evaluate::{Bounds, Input};
pub use evaluator::Evaluator;

#[cfg(test)]
mod tests;
