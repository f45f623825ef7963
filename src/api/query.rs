//! Parameters of a request, read strictly: a value that cannot be meant is 400, never a default. Which names a route
//! has is `described`'s.

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use percent_encoding::percent_decode_str;

use super::body::BodyError;
use super::problem::Problem;
use crate::error::Error;
use crate::saga::position::SagaId;
use crate::saga::time::Micros;

const DEFAULT_LIMIT: usize = 100;
const MAX_LIMIT: usize = 1_000;

/// The query string, decoded.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Query(Vec<(String, String)>);

impl Query {
    pub fn parse(text: &str) -> Result<Self, Problem> {
        let decode = |part: &str| {
            let spaced = part.replace('+', " ");
            let text = percent_decode_str(&spaced).decode_utf8().map(|text| text.into_owned());
            text.map_err(|_| Problem::invalid("the query is not percent-encoded UTF-8"))
        };
        let pairs = text.split('&').filter(|pair| !pair.is_empty());
        let pairs = pairs.map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((decode(name)?, decode(value)?))
        });
        pairs.collect::<Result<_, _>>().map(Self)
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }

    /// Every value of a parameter that may repeat.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// The value of a parameter that may be there once.
    pub fn one<'a>(&'a self, name: &str) -> Result<Option<&'a str>, Problem> {
        let mut values = self.0.iter().filter(|(n, _)| n == name);
        match (values.next(), values.next()) {
            (value, None) => Ok(value.map(|(_, value)| value.as_str())),
            _ => Err(Problem::invalid(format!("{name} may be given once"))),
        }
    }

    pub fn text(&self, name: &str) -> Result<Option<String>, Problem> {
        Ok(self.one(name)?.map(str::to_owned))
    }

    pub fn time(&self, name: &str) -> Result<Option<Micros>, Problem> {
        let read = |text: &str| text.parse().map_err(|e| Error::invalid("invalid_time", format!("{name}: {e}")).into());
        self.one(name)?.map(read).transpose()
    }

    pub fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, Problem> {
        // A sign is no part of a count, though `parse` takes a plus.
        let read =
            |text: &str| Some(text).filter(|text| text.bytes().all(|b| b.is_ascii_digit())).and_then(|text| text.parse().ok());
        let must = || Problem::invalid(format!("{name} must be a whole number"));
        self.one(name)?.map(|text| read(text).ok_or_else(must)).transpose()
    }

    pub fn switch(&self, name: &str) -> Result<bool, Problem> {
        match self.one(name)? {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(Problem::invalid(format!("{name} must be true or false"))),
        }
    }

    pub fn limit(&self) -> Result<usize, Problem> {
        let must = || Problem::invalid(format!("limit must be a whole number from 1 to {MAX_LIMIT}"));
        let limit = self.number("limit").map_err(|_| must())?.unwrap_or(DEFAULT_LIMIT);
        if (1..=MAX_LIMIT).contains(&limit) { Ok(limit) } else { Err(must()) }
    }

    /// `since` and `until`.
    pub fn window(&self) -> Result<(Option<Micros>, Option<Micros>), Problem> {
        Ok((self.time("since")?, self.time("until")?))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Query {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Self::parse(parts.uri.query().unwrap_or_default())
    }
}

/// The one path parameter, percent-decoded as it stands: `..`, a slash or NUL are as good as any other id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Id(pub String);

impl Id {
    /// Refused like any saga that is not there if no saga can have this id.
    pub fn saga(self) -> Result<SagaId, Problem> {
        if self.0.chars().count() > SagaId::MAX_CHARS {
            return Err(Error::refused("saga_not_found", "a saga id has at most 256 characters").into());
        }
        Ok(SagaId::new(self.0))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        path.map(|Path(id)| Self(id)).map_err(|_| Problem::invalid("the id in the path is not percent-encoded UTF-8"))
    }
}

/// A request's body, of at most the size the router allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document(pub Bytes);

impl<S: Send + Sync> FromRequest<S> for Document {
    type Rejection = Problem;
    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let body = Bytes::from_request(request, state).await;
        body.map(Self).map_err(|rejection| match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => {
                // The contract gives every refusal that it does not name 422.
                Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "too_large", "the body is larger than [limits] max_record")
            }
            _ if is_caused_by::<BodyError>(&rejection) => {
                let status = StatusCode::REQUEST_TIMEOUT;
                Problem::new(status, "request_timeout", "the body did not come whole within [api] peer_timeout")
            }
            _ => Problem::invalid("the body could not be read"),
        })
    }
}

fn is_caused_by<E: std::error::Error + 'static>(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source()).any(|error| error.is::<E>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(text: &str) -> Query {
        Query::parse(text).expect("a query")
    }

    #[test]
    fn a_limit_is_from_1_to_1000() {
        assert_eq!(query("").limit(), Ok(100));
        assert_eq!(query("limit=1").limit(), Ok(1));
        assert_eq!(query("limit=1000").limit(), Ok(1_000));
        for wrong in ["0", "1001", "-1", "+5", "", "ten", "1e2", "99999999999999999999", "5&limit=5"] {
            let problem = query(&format!("limit={wrong}")).limit().expect_err(wrong);
            assert_eq!((problem.status.as_u16(), problem.code), (400, "request_invalid"), "{wrong}");
        }
    }

    #[test]
    fn a_time_needs_a_zone() {
        assert!(query("at=2026-01-10T10:00:00%2B01:00").time("at").expect("time").is_some());
        for wrong in ["2026-01-10T10:00:00", "", "2026-01-10T10:00:00+01:00", "now"] {
            assert_eq!(query(&format!("at={wrong}")).time("at").expect_err(wrong).code, "invalid_time");
        }
    }

    #[test]
    fn a_query_is_decoded_once_and_must_be_utf8() {
        let query = query("label=a%3Ab+c&label=%252F&x&=y");
        assert_eq!(query.all("label").collect::<Vec<_>>(), ["a:b c", "%2F"]);
        assert_eq!(query.one("x"), Ok(Some("")));
        assert!(Query::parse("a=%FF").is_err());
    }

    #[test]
    fn switches_are_true_or_false() {
        assert_eq!(query("forced=true").switch("forced"), Ok(true));
        assert_eq!(query("").switch("forced"), Ok(false));
        assert!(query("forced=1").switch("forced").is_err());
    }
}
