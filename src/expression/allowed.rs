//! What an expression may name, so that it surely ends and touches nothing outside: functions of a list, and definitions of its
//! own that do not reach themselves. Looks at the parsed tree, before anything runs.

use jaq_core::load::lex::StrPart;
use jaq_core::load::parse::{BinaryOp, Def, Pattern, Term};
use jaq_core::path::{Part, Path};

/// Functions of [`super::functions`] that an expression may name; those of the prelude come besides.
pub const NATIVE: [&str; 38] = [
    "ascii_downcase",
    "ascii_upcase",
    "ceil",
    "contains",
    "endswith",
    "explode",
    "first",
    "floor",
    "fromjson",
    "group_by",
    "has",
    "implode",
    "indices",
    "keys_unsorted",
    "last",
    "length",
    "ltrim",
    "ltrimstr",
    "max_by",
    "min_by",
    "not",
    "path",
    "reverse",
    "round",
    "rtrim",
    "rtrimstr",
    "skip",
    "sort",
    "sort_by",
    "split",
    "sqrt",
    "startswith",
    "tojson",
    "tonumber",
    "trim",
    "trunc",
    "type",
    "utf8bytelength",
];

/// Of jq, and refused on purpose.
const UNBOUNDED: [&str; 8] = ["range", "repeat", "while", "until", "recurse", "limit", "combinations", "walk"];
const OUTSIDE: [&str; 12] = [
    "input",
    "inputs",
    "debug",
    "stderr",
    "input_filename",
    "input_line_number",
    "env",
    "now",
    "localtime",
    "strflocaltime",
    "halt",
    "halt_error",
];

/// What is not allowed, and where: a part of the text.
#[derive(Debug, PartialEq, Eq)]
pub struct Forbidden<'t> {
    pub at: &'t str,
    pub why: String,
}

/// Names with the number of their arguments that stand for definitions of the expression or its arguments.
struct Scope<'t> {
    name: &'t str,
    arguments: usize,
    /// Its own body is being looked at.
    is_open: bool,
}

struct Check<'t, 'p> {
    prelude: &'p [Def<&'static str>],
    scopes: Vec<Scope<'t>>,
}

pub fn check<'t>(term: &Term<&'t str>, prelude: &[Def<&'static str>]) -> Result<(), Forbidden<'t>> {
    Check { prelude, scopes: Vec::new() }.term(term)
}

impl<'t> Check<'t, '_> {
    fn terms<'a>(&mut self, terms: impl IntoIterator<Item = &'a Term<&'t str>>) -> Result<(), Forbidden<'t>>
    where
        't: 'a,
    {
        terms.into_iter().try_for_each(|term| self.term(term))
    }

    fn term(&mut self, term: &Term<&'t str>) -> Result<(), Forbidden<'t>> {
        match term {
            Term::Id | Term::Recurse | Term::Num(_) | Term::Break(_) | Term::Arr(None) => Ok(()),
            // Which variables there are the compiler knows.
            Term::Var(_) => Ok(()),
            Term::Arr(Some(inner)) | Term::Neg(inner) | Term::Label(_, inner) => self.term(inner),
            Term::Str(format, parts) => {
                if let Some(format) = format {
                    self.call(format, 0)?;
                }
                self.terms(parts.iter().filter_map(|part| match part {
                    StrPart::Term(term) => Some(term),
                    StrPart::Str(_) | StrPart::Char(_) => None,
                }))
            }
            Term::Obj(members) => members.iter().try_for_each(|(name, value)| {
                self.term(name)?;
                self.terms(value)
            }),
            Term::BinOp(left, operator, right) => {
                self.term(left)?;
                if let BinaryOp::Pipe(Some(pattern)) = operator {
                    self.pattern(pattern)?;
                }
                self.term(right)
            }
            Term::Fold(_, over, pattern, arguments) => {
                self.term(over)?;
                self.pattern(pattern)?;
                self.terms(arguments)
            }
            Term::TryCatch(tried, caught) => {
                self.term(tried)?;
                self.terms(caught.as_deref())
            }
            Term::IfThenElse(branches, otherwise) => {
                for (condition, then) in branches {
                    self.term(condition)?;
                    self.term(then)?;
                }
                self.terms(otherwise.as_deref())
            }
            Term::Def(definitions, rest) => {
                let before = self.scopes.len();
                for definition in definitions {
                    self.definition(definition)?;
                }
                self.term(rest)?;
                self.scopes.truncate(before);
                Ok(())
            }
            Term::Call(name, arguments) => {
                self.call(name, arguments.len())?;
                self.terms(arguments)
            }
            Term::Path(of, path) => {
                self.term(of)?;
                self.path(path)
            }
        }
    }

    fn path(&mut self, Path(parts): &Path<Term<&'t str>>) -> Result<(), Forbidden<'t>> {
        parts.iter().try_for_each(|(part, _)| match part {
            Part::Index(index) => self.term(index),
            Part::Range(from, until) => {
                self.terms(from)?;
                self.terms(until)
            }
        })
    }

    fn pattern(&mut self, pattern: &Pattern<&'t str>) -> Result<(), Forbidden<'t>> {
        match pattern {
            Pattern::Var(_) => Ok(()),
            Pattern::Arr(patterns) => patterns.iter().try_for_each(|pattern| self.pattern(pattern)),
            Pattern::Obj(members) => members.iter().try_for_each(|(name, pattern)| {
                self.term(name)?;
                self.pattern(pattern)
            }),
        }
    }

    /// From its end on it may be called, from within it may not.
    fn definition(&mut self, definition: &Def<&'t str>) -> Result<(), Forbidden<'t>> {
        let Def { name, args, body } = definition;
        self.scopes.push(Scope { name, arguments: args.len(), is_open: true });
        let own = self.scopes.len();
        let arguments = args.iter().filter(|name| !name.starts_with('$'));
        self.scopes.extend(arguments.map(|name| Scope { name, arguments: 0, is_open: false }));
        self.term(body)?;
        self.scopes.truncate(own);
        self.scopes.push(Scope { name, arguments: args.len(), is_open: false });
        self.scopes.remove(own - 1);
        Ok(())
    }

    fn call(&self, name: &'t str, arguments: usize) -> Result<(), Forbidden<'t>> {
        let forbidden = |why: String| Err(Forbidden { at: name, why });
        let own = self.scopes.iter().rfind(|scope| scope.name == name && scope.arguments == arguments);
        if let Some(scope) = own {
            return if scope.is_open { forbidden(format!("{name} reaches itself and may not end")) } else { Ok(()) };
        }
        let in_prelude = |def: &Def<&str>| def.name == name && def.args.len() == arguments;
        let is_listed = NATIVE.contains(&name) || self.prelude.iter().any(in_prelude);
        if is_listed && !name.starts_with('_') {
            Ok(())
        } else if UNBOUNDED.contains(&name) {
            forbidden(format!("{name} is not allowed: it may not end"))
        } else if OUTSIDE.contains(&name) {
            forbidden(format!("{name} is not allowed: an expression sees nothing but its input"))
        } else {
            forbidden(format!("{name} with {arguments} arguments is not one of the functions here"))
        }
    }
}
