//! Cursors: opaque to the caller, and stable: they name a place in the order, not a page.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::error::{Error, Result};
use crate::saga::position::SagaId;
use crate::saga::time::Micros;

/// After the entry of this sequence.
pub fn write_sequence(sequence: u64) -> String {
    URL_SAFE_NO_PAD.encode(format!("e{sequence}"))
}

pub fn read_sequence(cursor: &str) -> Result<u64> {
    let number = text(cursor)?.strip_prefix('e').and_then(|number| number.parse().ok());
    number.ok_or_else(invalid)
}

/// A place among what a search finds: newest first, then by saga id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SearchCursor {
    pub at: Micros,
    /// After this saga; `None`: after all of that time.
    pub saga: Option<SagaId>,
}

impl SearchCursor {
    /// Does what was found come after this place?
    pub fn is_before(&self, at: Micros, saga: &SagaId) -> bool {
        at < self.at || at == self.at && self.saga.as_ref().is_some_and(|last| last < saga)
    }

    pub fn write(&self) -> String {
        let id = self.saga.as_ref().map_or(String::new(), |saga| format!(",{saga}"));
        URL_SAFE_NO_PAD.encode(format!("s{}{id}", self.at.0))
    }

    pub fn read(cursor: &str) -> Result<Self> {
        let text = text(cursor)?;
        let place = text.strip_prefix('s').ok_or_else(invalid)?;
        let (at, saga) = match place.split_once(',') {
            Some((at, saga)) => (at, Some(SagaId::from(saga))),
            None => (place, None),
        };
        Ok(Self { at: Micros(at.parse().map_err(|_| invalid())?), saga })
    }
}

fn text(cursor: &str) -> Result<String> {
    let bytes = URL_SAFE_NO_PAD.decode(cursor).map_err(|_| invalid())?;
    String::from_utf8(bytes).map_err(|_| invalid())
}

fn invalid() -> Error {
    Error::invalid("request_invalid", "after: not a cursor of this route")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_reads_back_whatever_the_saga_id_holds() {
        for saga in [None, Some("a,b/ \u{0}🚚".into())] {
            let place = SearchCursor { at: Micros(-5), saga };
            assert_eq!(SearchCursor::read(&place.write()), Ok(place));
        }
        assert_eq!(read_sequence(&write_sequence(7)), Ok(7));
    }

    #[test]
    fn a_cursor_of_another_route_is_refused() {
        assert!(read_sequence(&SearchCursor { at: Micros(1), saga: None }.write()).is_err());
        assert!(SearchCursor::read(&write_sequence(7)).is_err());
        assert!(SearchCursor::read("?").is_err());
    }
}
