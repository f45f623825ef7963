//! Asks before many replays: on a terminal a question, elsewhere a flag. The environment never answers.

use std::io::{self, BufRead, IsTerminal, Write};

use clap::Args;

use super::exit::{Exit, Failure};
use super::output::note;

/// With more sagas than this the number itself must be given.
const SEVERE_ABOVE: u64 = 25;

#[derive(Debug, Args)]
pub struct Confirmation {
    /// Answers the question before a batch of at most 25 sagas.
    #[arg(long)]
    yes: bool,
    /// Answers it before any batch that has exactly so many sagas.
    #[arg(long, value_name = "SAGAS")]
    confirm: Option<u64>,
}

impl Confirmation {
    pub fn is_given(&self) -> bool {
        self.yes || self.confirm.is_some()
    }
}

/// What is to be confirmed, and what answers it without a terminal. The warnings come first, whoever answers.
pub fn confirm(given: &Confirmation, count: u64, what: &str, warnings: &[String]) -> Result<(), Failure> {
    warnings.iter().for_each(|warning| note(warning));
    let terminal = io::stdin().is_terminal() && io::stderr().is_terminal();
    match answered(given, count)? {
        true => Ok(()),
        false if terminal => ask(count, what),
        false => {
            let flag = if count > SEVERE_ABOVE { format!("--confirm {count}") } else { format!("--yes or --confirm {count}") };
            Err(Failure::new(Exit::Unconfirmed, "unconfirmed", what).hint(format!("{flag} confirms it")))
        }
    }
}

/// Do the flags answer?
fn answered(given: &Confirmation, count: u64) -> Result<bool, Failure> {
    match given.confirm {
        Some(number) if number == count => Ok(true),
        Some(number) => {
            let message = format!("--confirm says {number} sagas, there are {count}");
            Err(Failure::new(Exit::Unconfirmed, "unconfirmed", message).hint("look at the plan again before you confirm it"))
        }
        None => Ok(given.yes && count <= SEVERE_ABOVE),
    }
}

fn ask(count: u64, what: &str) -> Result<(), Failure> {
    let severe = count > SEVERE_ABOVE;
    let question = if severe { format!("{what}. Type the number of sagas to go on: ") } else { format!("{what}. Go on? [y/N] ") };
    drop(write!(io::stderr(), "{question}"));
    let mut line = String::new();
    drop(io::stdin().lock().read_line(&mut line));
    let line = line.trim();
    let agreed =
        if severe { line == count.to_string() } else { line.eq_ignore_ascii_case("y") || line.eq_ignore_ascii_case("yes") };
    if agreed { Ok(()) } else { Err(Failure::new(Exit::Unconfirmed, "unconfirmed", "not confirmed: nothing was published")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_sagas_are_confirmed_by_their_number_alone() {
        let answer = |yes, confirm, count| answered(&Confirmation { yes, confirm }, count).map_err(|failure| failure.exit);
        assert_eq!(answer(true, None, 25), Ok(true));
        assert_eq!(answer(true, None, 26), Ok(false));
        assert_eq!(answer(false, None, 1), Ok(false));
        assert_eq!(answer(false, Some(1_500), 1_500), Ok(true));
        assert_eq!(answer(true, Some(1_499), 1_500), Err(Exit::Unconfirmed));
    }
}
