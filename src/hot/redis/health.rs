//! Is a Redis set up so that nothing is evicted that S3 lacks? Judges what INFO and CONFIG say. Pure.

use crate::hot::store::HotHealth;

/// Members are 300 to 500 bytes; smaller limits store each of them half as densely.
const LISTPACK_VALUE: u64 = 512;

/// Of `maxmemory`, in percent: from there on it is said to be nearly full.
const NEARLY_FULL: u64 = 90;

/// From the INFO texts of every server.
pub(super) fn judge(servers: &[String]) -> HotHealth {
    let mut health = HotHealth::default();
    for info in servers {
        let field = |name: &str| {
            let line =
                |line: &'_ str| line.split_once(':').filter(|(key, _)| *key == name).map(|(_, value)| value.trim().to_owned());
            info.lines().find_map(line)
        };
        let number = |name: &str| field(name).and_then(|text| text.parse::<u64>().ok());
        if let Some(used) = number("used_memory") {
            let most = number("maxmemory").filter(|most| *most > 0);
            if let Some(most) = most.filter(|most| used / (*most / 100).max(1) >= NEARLY_FULL) {
                let mib = |bytes: u64| bytes >> 20;
                health.hints.push(format!(
                    "it holds {} MiB of maxmemory {} MiB: full, it takes no new sagas; raise maxmemory, or lower hot.ttl",
                    mib(used),
                    mib(most)
                ));
            }
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
    fn a_server_that_is_nearly_full_is_told_before_it_is() {
        let hints = |used: u64, most: u64| {
            let info = format!("used_memory:{used}\r\nmaxmemory:{most}\r\nmaxmemory_policy:noeviction\r\n");
            judge(&[info]).hints
        };
        assert!(matches!(&hints(95 << 20, 100 << 20)[..], [hint] if hint.contains("95 MiB of maxmemory 100 MiB")));
        assert_eq!(hints(80 << 20, 100 << 20), Vec::<String>::new());
        assert_eq!(hints(80 << 20, 0), Vec::<String>::new(), "no limit");
    }

    #[test]
    fn a_server_that_does_not_tell_is_unknown_and_a_replica_is_a_problem() {
        let health = judge(&["role:slave\r\n".into()]);
        assert_eq!((health.eviction_policy, health.problems.len(), health.hints.len()), (None, 1, 1));
    }
}
