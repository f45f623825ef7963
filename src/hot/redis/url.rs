//! What a `hot.url` of Redis says: one server or a cluster, TLS or not, the key prefix.
//!
//! `redis://[user][:password@]host[:port][/db][?prefix=name]`, `rediss://` for TLS; `redis+cluster://` and
//! `rediss+cluster://` with one or more `host:port`, comma-separated. Texts never repeat the URL: it can hold a password.

use std::time::Duration;

use redis::IntoConnectionInfo;
use redis::cluster::{ClusterClient, ClusterClientBuilder};

use super::keys;
use crate::config::HotScheme;
use crate::error::{Error, Result};

/// Redirections and short outages of a slot that the cluster client follows by itself inside one call.
const CLUSTER_RETRIES: u32 = 3;

pub(super) enum Server {
    Single(Box<redis::Client>),
    Cluster(Box<ClusterClient>),
}

pub(super) struct RedisUrl {
    pub server: Server,
    /// `host:port`, for messages.
    pub address: String,
    pub prefix: String,
}

impl RedisUrl {
    pub fn parse(url: &str, timeout: Duration) -> Result<Self> {
        let Some((HotScheme::Redis { tls, cluster }, (_, rest))) = HotScheme::of(url).zip(url.split_once("://")) else {
            return Err(invalid(&HotScheme::must()));
        };
        let scheme = if tls { "rediss" } else { "redis" };
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (prefix, query) = take_prefix(query);
        let query = if query.is_empty() { query } else { format!("?{query}") };
        let prefix = prefix.unwrap_or_else(|| keys::DEFAULT_PREFIX.to_owned());
        if !cluster {
            let info = format!("{scheme}://{place}{query}").into_connection_info().map_err(refused)?;
            let address = info.addr().to_string();
            let client = redis::Client::open(info).map_err(refused)?;
            return Ok(Self { server: Server::Single(Box::new(client)), address, prefix });
        }
        let (authority, path) = place.split_once('/').unwrap_or((place, ""));
        if !matches!(path, "" | "0") {
            return Err(invalid("names a database, but a cluster has only 0"));
        }
        let (user, hosts) = authority.rsplit_once('@').map_or(("", authority), |(user, hosts)| (user, hosts));
        let user = if user.is_empty() { String::new() } else { format!("{user}@") };
        let nodes = hosts.split(',').map(|host| format!("{scheme}://{user}{host}{query}"));
        let client = ClusterClientBuilder::new(nodes)
            .retries(CLUSTER_RETRIES)
            .connection_timeout(timeout)
            .response_timeout(timeout)
            .build()
            .map_err(refused)?;
        Ok(Self { server: Server::Cluster(Box::new(client)), address: hosts.to_owned(), prefix })
    }
}

/// Our own parameter out of the client's.
fn take_prefix(query: &str) -> (Option<String>, String) {
    let mut prefix = None;
    let others = query.split('&').filter(|pair| match pair.strip_prefix("prefix=") {
        Some(name) => {
            prefix = Some(name.to_owned());
            false
        }
        None => !pair.is_empty(),
    });
    let others = others.collect::<Vec<_>>().join("&");
    (prefix, others)
}

fn invalid(why: &str) -> Error {
    Error::invalid("config_invalid", format!("hot.url {why}"))
}

fn refused(error: redis::RedisError) -> Error {
    // The client's own words without its detail, which can quote the URL.
    invalid(&format!("is not understood by the redis client ({})", error.category()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<RedisUrl> {
        RedisUrl::parse(url, Duration::from_secs(1))
    }

    #[test]
    fn one_server_with_database_and_prefix() {
        let url = parse("redis://user:secret@127.0.0.1:7001/3?prefix=eu-1&protocol=resp3").unwrap();
        assert!(matches!(&url.server, Server::Single(client) if client.get_connection_info().redis_settings().db() == 3));
        assert_eq!((url.address.as_str(), url.prefix.as_str()), ("127.0.0.1:7001", "eu-1"));
        assert_eq!(parse("rediss://example.org").unwrap().prefix, "resaga");
    }

    #[test]
    fn a_cluster_of_several_hosts() {
        let url = parse("redis+cluster://:secret@10.0.0.1:7001,10.0.0.2:7001/0").unwrap();
        assert!(matches!(url.server, Server::Cluster(_)));
        assert_eq!(url.address, "10.0.0.1:7001,10.0.0.2:7001");
    }

    #[test]
    fn what_is_wrong_is_invalid_and_tells_no_password() {
        for url in ["secret", "redis://:secret@/x", "http://secret", "redis+cluster://:secret@a:1/2", "redis://:secret@a:99999"] {
            let error = parse(url).err().unwrap_or_else(|| panic!("{url} was understood"));
            assert!(matches!(error, Error::Invalid { code: "config_invalid", .. }), "{error:?}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }
}
