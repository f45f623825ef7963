//! From the text of an expression to what can be evaluated, or where it is wrong.

use jaq_core::data::JustLut;
use jaq_core::load::parse::Def;
use jaq_core::load::{Arena, File, Lexer, Loader, Parser, parse, span};
use jaq_core::{Compiler, Filter};

use super::allowed;
use super::functions::functions;
use super::value::Value;

pub type Data = JustLut<Value>;

/// Bytes of an expression. Its parser takes stack for each bracket.
pub const MAX_BYTES: usize = 16 << 10;
/// What an expression knows besides its input, in this order.
const VARIABLES: [&str; 2] = ["$saga", "$item"];

/// Made by [`Language::compile`].
pub struct Expression {
    pub filter: Filter<Data>,
}

/// The definitions that every expression may use.
pub struct Language {
    prelude: Vec<Def<&'static str>>,
}

/// Says what and where; never a value of a saga. The text of the expression is its author's own.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Wrong(String);

impl Language {
    pub fn new() -> Self {
        let prelude = parse(include_str!("prelude.jq"), |parser| parser.defs());
        Self { prelude: prelude.expect("the prelude is tested") }
    }

    /// Of all functions that an expression may use.
    #[cfg(test)]
    pub fn names(&self) -> std::collections::BTreeSet<&'static str> {
        let prelude = self.prelude.iter().map(|def| def.name).filter(|name| !name.starts_with('_'));
        prelude.chain(allowed::NATIVE).collect()
    }

    pub fn compile(&self, text: &str) -> Result<Expression, Wrong> {
        if text.len() > MAX_BYTES {
            return Err(Wrong(format!("the expression has {} bytes, {MAX_BYTES} are allowed", text.len())));
        }
        let wrong = |at: &str, what: &str| Wrong(format!("{what} at character {}", character(text, at)));
        let unexpected = |at: Option<&str>| match at {
            Some(at) if !at.is_empty() => wrong(at, "unexpected text"),
            _ => Wrong("the expression ends too early".into()),
        };
        let tokens = Lexer::new(text).lex().map_err(|errors| unexpected(errors.first().map(|(_, at)| *at)))?;
        let parsed = Parser::new(&tokens).parse(|parser| parser.term());
        let term = parsed.map_err(|errors| unexpected(errors.first().and_then(|(_, token)| token.as_ref().map(|t| t.0))))?;
        allowed::check(&term, &self.prelude).map_err(|forbidden| wrong(forbidden.at, &forbidden.why))?;
        let arena = Arena::default();
        let loaded = Loader::new(self.prelude.iter().cloned()).load(&arena, File { code: text, path: () });
        let loaded = loaded.map_err(|_| Wrong("the expression cannot be read".into()))?;
        let compiled = Compiler::default().with_global_vars(VARIABLES).with_funs(functions::<Data>()).compile(loaded);
        compiled.map(|filter| Expression { filter }).map_err(|errors| {
            let first = errors.into_iter().flat_map(|(_, errors)| errors).next();
            first.map_or_else(
                || Wrong("the expression cannot be compiled".into()),
                |(name, what)| wrong(name, &format!("{} {name} is not known", what.as_str())),
            )
        })
    }
}

/// Counted from 1.
fn character(text: &str, part: &str) -> usize {
    text.get(..span(text, part).start).map_or(0, |before| before.chars().count()) + 1
}
