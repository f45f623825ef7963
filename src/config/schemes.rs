//! The schemes of the stores' URLs: the one list of what `hot.url` and `cold.url` may begin with.

/// Which hot store a URL means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HotScheme {
    Redis { tls: bool, cluster: bool },
    Memory,
}

const HOT: [(&str, HotScheme); 5] = [
    ("redis", HotScheme::Redis { tls: false, cluster: false }),
    ("rediss", HotScheme::Redis { tls: true, cluster: false }),
    ("redis+cluster", HotScheme::Redis { tls: false, cluster: true }),
    ("rediss+cluster", HotScheme::Redis { tls: true, cluster: true }),
    ("memory", HotScheme::Memory),
];

impl HotScheme {
    /// `None`: no URL, or one of another scheme.
    pub fn of(url: &str) -> Option<Self> {
        let (scheme, _) = url.split_once("://")?;
        HOT.into_iter().find(|(name, _)| *name == scheme).map(|(_, kind)| kind)
    }

    /// What `hot.url` must be, as the end of a sentence that begins with the key.
    pub fn must() -> String {
        format!("must be a URL that begins with {}", HOT.map(|(name, _)| format!("{name}://")).join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_its_store_by_its_scheme() {
        assert_eq!(HotScheme::of("rediss+cluster://a:1,b:2"), Some(HotScheme::Redis { tls: true, cluster: true }));
        assert_eq!(HotScheme::of("redis://a"), Some(HotScheme::Redis { tls: false, cluster: false }));
        assert_eq!(HotScheme::of("memory://"), Some(HotScheme::Memory));
        for other in ["", "redis", "http://a", "Redis://a", "postgres://a"] {
            assert_eq!(HotScheme::of(other), None, "{other}");
        }
        assert!(HotScheme::must().contains("redis+cluster://, "));
    }
}
