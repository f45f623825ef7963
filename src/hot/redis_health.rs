//! Is a Redis set up so that nothing is evicted that S3 lacks? Judges what INFO and CONFIG say. Pure.

use super::HotHealth;

/// Members are 300 to 500 bytes; smaller limits store each of them half as densely.
const LISTPACK_VALUE: u64 = 512;

/// From the INFO texts of every server.
pub(super) fn judge(servers: &[String]) -> HotHealth {
    let mut health = HotHealth::default();
    for info in servers {
        let field = |name: &str| {
            let line =
                |line: &'_ str| line.split_once(':').filter(|(key, _)| *key == name).map(|(_, value)| value.trim().to_owned());
            info.lines().find_map(line)
        };
        if let Some(used) = field("used_memory").and_then(|used| used.parse::<u64>().ok()) {
            health.used_bytes = Some(health.used_bytes.unwrap_or(0).saturating_add(used));
        }
        if field("role").is_some_and(|role| role != "master") {
            health.problems.push("hot.url is a replica, which refuses writes: name the primary".into());
        }
        let Some(policy) = field("maxmemory_policy") else { continue };
        if policy.starts_with("allkeys-") {
            health.problems.push(format!(
                "maxmemory-policy {policy} can evict what S3 does not have yet: CONFIG SET maxmemory-policy volatile-ttl"
            ));
        }
        // Of several servers the worst one is shown.
        if health.eviction_policy.as_ref().is_none_or(|shown| !shown.starts_with("allkeys-")) {
            health.eviction_policy = Some(policy);
        }
    }
    if health.eviction_policy.is_none() {
        health
            .hints
            .push("maxmemory-policy is unknown: this server does not tell; make sure it is volatile-ttl or noeviction".into());
    }
    health.problems.dedup();
    health
}

/// From CONFIG GET zset-max-listpack-value of every server.
pub(super) fn hint(health: &mut HotHealth, servers: &[Vec<(String, String)>]) {
    let small = |(_, value): &(String, String)| value.parse::<u64>().is_ok_and(|value| value < LISTPACK_VALUE);
    if servers.iter().flatten().any(small) {
        health.hints.push(format!(
            "history takes about a third less memory with CONFIG SET zset-max-listpack-value {LISTPACK_VALUE} or more"
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(policy: &str) -> String {
        format!("# Memory\r\nused_memory:1000\r\nmaxmemory_policy:{policy}\r\n# Replication\r\nrole:master\r\n")
    }

    #[test]
    fn a_policy_that_evicts_keys_without_expiry_is_a_problem() {
        let health = judge(&[info("noeviction"), info("allkeys-lru"), info("volatile-ttl")]);
        assert_eq!((health.eviction_policy.as_deref(), health.used_bytes), (Some("allkeys-lru"), Some(3_000)));
        assert!(matches!(&health.problems[..], [problem] if problem.contains("volatile-ttl")));
        assert_eq!(judge(&[info("volatile-lru")]).problems, Vec::<String>::new());
    }

    #[test]
    fn a_server_that_does_not_tell_is_unknown_and_a_replica_is_a_problem() {
        let health = judge(&["role:slave\r\n".into()]);
        assert_eq!((health.eviction_policy, health.problems.len(), health.hints.len()), (None, 1, 1));
    }
}
