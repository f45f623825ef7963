//! What an error of Redis means for the caller. Texts hold codes and causes, never keys, values or passwords.

use redis::{ErrorKind, RedisError, ServerErrorKind};

use crate::error::Error;

/// Must the next call reconnect? After a broken or confused connection, and when the server is no longer the one
/// to write to (a replica now, another owner of the slot).
pub(super) fn connection_is_over(error: &RedisError) -> bool {
    use ServerErrorKind::{ClusterDown, ExecAbort, Moved, ReadOnly};
    match error.kind() {
        ErrorKind::Server(kind) => matches!(kind, ReadOnly | ExecAbort | Moved | ClusterDown),
        ErrorKind::Extension | ErrorKind::UnexpectedReturnType => false,
        _ => true,
    }
}

pub(super) fn is_no_script(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
}

pub(super) fn explain(error: RedisError, address: &str) -> Error {
    let kind = error.kind();
    let io = error.is_io_error().then(|| error.to_string());
    let code = code_of(error);
    let why = match (kind, code.as_deref()) {
        (_, Some("WRONGTYPE")) => {
            return Error::corrupt("redis key holds another type: another program writes under this prefix");
        }
        (ErrorKind::UnexpectedReturnType, _) => return Error::corrupt("redis reply is not of the expected shape"),
        (ErrorKind::InvalidClientConfig | ErrorKind::RESP3NotSupported, _) => {
            return Error::invalid("config_invalid", "hot.url is refused by the redis client");
        }
        (_, Some("OOM")) => "out of memory: raise maxmemory, or lower hot.ttl",
        (_, Some("MISCONF")) => "writes are stopped because its own saving fails (MISCONF)",
        (_, Some("READONLY")) => "it is a replica (READONLY)",
        (_, Some("LOADING")) => "it is loading its data (LOADING)",
        (_, Some("CLUSTERDOWN" | "MASTERDOWN")) => "the cluster has slots without a server (CLUSTERDOWN)",
        (_, Some("TRYAGAIN" | "MOVED" | "ASK" | "EXECABORT")) => "slots are moving, or the server is not ready",
        (_, Some("NOPERM" | "NOAUTH" | "WRONGPASS")) | (ErrorKind::AuthenticationFailed, _) => {
            "no permission: check user and password"
        }
        (ErrorKind::ClusterConnectionNotFound, _) => "no node of the cluster answers",
        (ErrorKind::Parse, _) => "it does not speak the redis protocol",
        _ => match (&io, &code) {
            (Some(cause), _) => cause,
            (None, Some(code)) => code,
            (None, None) => "it refused a command",
        },
    };
    Error::unavailable(format!("redis at {address}: {why}"))
}

pub(super) fn timed_out(address: &str, limit: std::time::Duration) -> Error {
    Error::unavailable(format!("redis at {address}: no answer within {} ms (hot.timeout)", limit.as_millis()))
}

/// Not asked: it had no answer for a call a moment ago.
pub(super) fn resting(address: &str, limit: std::time::Duration) -> Error {
    let limit = limit.as_millis();
    Error::unavailable(format!("redis at {address}: no answer within {limit} ms (hot.timeout) to an earlier call, not asked now"))
}

/// The server's code, of the first command of a pipeline that failed.
fn code_of(error: RedisError) -> Option<String> {
    error.into_server_errors().and_then(|errors| errors.first().map(|(_, error)| error.code().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from_server(line: &str) -> RedisError {
        redis::parse_redis_value(line.as_bytes()).and_then(|value| value.extract_error()).expect_err("an error line")
    }

    #[test]
    fn what_passes_by_itself_is_unavailable_and_what_is_stored_wrong_is_corrupt() {
        for line in [
            "-OOM x",
            "-MISCONF x",
            "-READONLY x",
            "-LOADING x",
            "-CLUSTERDOWN x",
            "-TRYAGAIN x",
            "-NOAUTH x",
            "-ERR x",
            "-BUSY x",
        ] {
            let error = explain(from_server(&format!("{line}\r\n")), "h:1");
            assert!(error.is_unavailable(), "{line}: {error:?}");
        }
        assert!(matches!(explain(from_server("-WRONGTYPE x\r\n"), "h:1"), Error::Corrupt(_)));
    }

    #[test]
    fn the_text_quotes_nothing_the_server_says_about_keys() {
        let error = explain(from_server("-ERR unknown command 'ZADD', with args beginning with: 's:order-1'\r\n"), "h:1");
        assert_eq!(error, Error::unavailable("redis at h:1: ERR"));
    }

    #[test]
    fn a_replica_is_left_and_a_full_server_is_not() {
        assert!(connection_is_over(&from_server("-READONLY x\r\n")));
        assert!(!connection_is_over(&from_server("-OOM x\r\n")));
        assert!(connection_is_over(&RedisError::from(std::io::Error::from(std::io::ErrorKind::BrokenPipe))));
    }
}
