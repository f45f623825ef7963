//! Who is answered at all: a page of another site starts nothing, and a host name that is not ours leads
//! nowhere (DNS rebinding). Browsers say where a request comes from; programs say nothing of it and go on as before.
//!
//! Knows headers; must not know routes or what they do.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::Request;
use axum::http::header::{HOST, ORIGIN};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, Method, StatusCode, Uri};

use super::problem::Problem;

/// The names by which this process may be reached.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Hosts {
    /// The host of `[api] listen`.
    listen: String,
    /// `[api] hosts`, each with a port or, for every port, without.
    further: Vec<String>,
    /// It listens on every address: an address as the host is as good as another, and no name can be rebound to it.
    any_address: bool,
}

impl Hosts {
    /// `listen`: host:port. `further`: names, or name:port.
    pub fn new(listen: &str, further: &[String]) -> Arc<Self> {
        let listen = plain(listen.rsplit_once(':').map_or(listen, |(host, _)| host));
        let any_address = address(&listen).is_some_and(|address| address.is_unspecified());
        Arc::new(Self { listen, further: further.iter().map(|name| name.to_ascii_lowercase()).collect(), any_address })
    }

    fn allow(&self, authority: &Authority) -> bool {
        let host = plain(authority.host());
        let loopback = host == "localhost" || host.ends_with(".localhost") || address(&host).is_some_and(|a| a.is_loopback());
        loopback
            || host == self.listen
            || self.any_address && address(&host).is_some()
            || self.further.contains(&host)
            // Of which scheme a proxy was asked is not told here.
            || [80, 443].into_iter().any(|default_port| self.has_place(authority, default_port))
    }

    /// Does a further name say this host and port?
    fn has_place(&self, authority: &Authority, default_port: u16) -> bool {
        let place = format!("{}:{}", plain(authority.host()), authority.port_u16().unwrap_or(default_port));
        self.further.iter().any(|name| *name == place || *name == authority.as_str().to_ascii_lowercase())
    }

    /// Is a page of this origin one of ours? `host`: what the request itself went to.
    fn own(&self, origin: &str, host: Option<&Authority>) -> bool {
        let Ok(uri) = origin.parse::<Uri>() else { return false };
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else { return false };
        let default_port = match scheme {
            "https" => 443,
            "http" => 80,
            _ => return false,
        };
        let place = |a: &Authority| (plain(a.host()), a.port_u16().unwrap_or(default_port));
        host.is_some_and(|host| place(host) == place(authority))
            // Behind a proxy that names us otherwise than the browser does.
            || self.has_place(authority, default_port)
    }

    /// Why the request is not answered, if it is not.
    pub fn judge(&self, request: &Request) -> Result<(), Problem> {
        self.judge_head(request.method(), request.uri(), request.headers())
    }

    fn judge_head(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<(), Problem> {
        let mut hosts = Vec::new();
        for value in headers.get_all(HOST) {
            let authority = value.to_str().ok().and_then(|text| text.parse::<Authority>().ok());
            hosts.push(authority.filter(|authority| !authority.as_str().contains('@')).ok_or_else(misdirected)?);
        }
        // Of a request in absolute form.
        hosts.extend(uri.authority().cloned());
        if !hosts.iter().all(|host| self.allow(host)) {
            return Err(misdirected());
        }
        if matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) {
            return Ok(());
        }
        let site = headers.get_all("sec-fetch-site").iter().all(|site| site == "same-origin" || site == "none");
        let own = |origin: &str| self.own(origin, hosts.first());
        let origin = headers.get_all(ORIGIN).iter().all(|origin| origin.to_str().is_ok_and(own));
        if site && origin { Ok(()) } else { Err(cross_origin()) }
    }
}

/// Lower case, without the brackets of an IPv6 address and the dot that may end a name.
fn plain(host: &str) -> String {
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()
}

fn address(host: &str) -> Option<IpAddr> {
    host.parse().ok()
}

fn misdirected() -> Problem {
    let detail =
        "the request's host is none of this process's: neither a loopback name, nor its listen address, nor one of [api] hosts";
    Problem::new(StatusCode::MISDIRECTED_REQUEST, "host_not_allowed", detail)
}

fn cross_origin() -> Problem {
    Problem::new(StatusCode::FORBIDDEN, "cross_origin", "a page of another origin may change nothing here")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(hosts: &Hosts, method: Method, headers: &[(&'static str, &str)]) -> &'static str {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().expect("a value"));
        }
        hosts.judge_head(&method, &Uri::from_static("/v1/replays"), &map).map_or_else(|problem| problem.code, |()| "ok")
    }

    #[test]
    fn programs_that_say_nothing_of_an_origin_go_on() {
        let hosts = Hosts::new("127.0.0.1:8080", &[]);
        for headers in [&[][..], &[("host", "127.0.0.1:8080")], &[("host", "localhost:1")], &[("host", "[::1]:8080")]] {
            assert_eq!(judged(&hosts, Method::POST, headers), "ok", "{headers:?}");
        }
    }

    #[test]
    fn a_page_of_another_site_changes_nothing() {
        let hosts = Hosts::new("127.0.0.1:8080", &["resaga.example.org".into(), "ops.example.org:8443".into()]);
        let host = ("host", "localhost:8080");
        for (headers, expected) in [
            (&[host, ("sec-fetch-site", "cross-site")][..], "cross_origin"),
            (&[host, ("sec-fetch-site", "same-site")], "cross_origin"),
            (&[host, ("sec-fetch-site", "same-origin"), ("origin", "http://localhost:8080")], "ok"),
            (&[host, ("sec-fetch-site", "none")], "ok"),
            (&[host, ("sec-fetch-site", "same-origin"), ("sec-fetch-site", "cross-site")], "cross_origin"),
            (&[host, ("origin", "http://LOCALHOST:8080")], "ok"),
            (&[host, ("origin", "http://localhost:3000")], "cross_origin"),
            (&[host, ("origin", "http://127.0.0.1:8080")], "cross_origin"),
            (&[host, ("origin", "null")], "cross_origin"),
            (&[host, ("origin", "https://evil.example")], "cross_origin"),
            (&[host, ("origin", "http://localhost:8080"), ("origin", "https://evil.example")], "cross_origin"),
            (&[("host", "resaga.example.org"), ("origin", "https://resaga.example.org")], "ok"),
            (&[("host", "resaga.example.org:443"), ("origin", "https://resaga.example.org")], "ok"),
            (&[host, ("origin", "https://resaga.example.org")], "ok"),
            (&[host, ("origin", "https://resaga.example.org:444")], "cross_origin"),
            (&[host, ("origin", "https://ops.example.org:8443")], "ok"),
            (&[("origin", "https://evil.example")], "cross_origin"),
        ] {
            for method in [Method::POST, Method::DELETE, Method::PATCH] {
                assert_eq!(judged(&hosts, method, headers), expected, "{headers:?}");
            }
            assert_eq!(judged(&hosts, Method::GET, headers), "ok", "reading is what a browser itself keeps from others");
        }
    }

    #[test]
    fn a_host_that_is_not_ours_leads_nowhere() {
        let hosts = Hosts::new("10.1.2.3:8080", &["resaga.example.org".into(), "ops.example.org:8443".into()]);
        for (host, expected) in [
            ("evil.example", "host_not_allowed"),
            ("evil.example:8080", "host_not_allowed"),
            ("localhost.evil.example", "host_not_allowed"),
            ("me@localhost", "host_not_allowed"),
            ("a b", "host_not_allowed"),
            ("10.1.2.4", "host_not_allowed"),
            ("10.1.2.3:8080", "ok"),
            ("127.0.0.1", "ok"),
            ("127.9.9.9:1", "ok"),
            ("LocalHost.", "ok"),
            ("app.localhost:8080", "ok"),
            ("Resaga.example.org:99", "ok"),
            ("ops.example.org:8443", "ok"),
            ("ops.example.org", "host_not_allowed"),
        ] {
            for method in [Method::GET, Method::POST] {
                assert_eq!(judged(&hosts, method, &[("host", host)]), expected, "{host}");
            }
        }
        let usual = Hosts::new("10.1.2.3:8080", &["resaga.example.org:443".into(), "ops.example.org:80".into()]);
        for (headers, expected) in [
            (&[("host", "resaga.example.org"), ("origin", "https://resaga.example.org")][..], "ok"),
            (&[("host", "ops.example.org."), ("origin", "http://ops.example.org")], "ok"),
            (&[("host", "localhost"), ("origin", "https://resaga.example.org")], "ok"),
            (&[("host", "localhost"), ("origin", "http://resaga.example.org")], "cross_origin"),
            (&[("host", "resaga.example.org:8443")], "host_not_allowed"),
        ] {
            assert_eq!(judged(&usual, Method::POST, headers), expected, "no client writes its scheme's own port: {headers:?}");
        }
        let two = [("host", "localhost"), ("host", "evil.example")];
        assert_eq!(judged(&hosts, Method::GET, &two), "host_not_allowed");
        let absolute = hosts.judge_head(&Method::GET, &Uri::from_static("http://evil.example/livez"), &HeaderMap::new());
        assert_eq!(absolute.map_err(|problem| problem.status.as_u16()), Err(421));
        let anywhere = Hosts::new("0.0.0.0:8080", &[]);
        assert_eq!(judged(&anywhere, Method::GET, &[("host", "10.1.2.4:8080")]), "ok", "what has no name cannot be rebound");
        assert_eq!(judged(&anywhere, Method::GET, &[("host", "evil.example:8080")]), "host_not_allowed");
    }
}
