//! For `doctor`: which partitioner explains the newest keys of the events topics, and where none does.

use super::check::{Check, Verdict, ok, warning};
use crate::config::PartitionerSetting;
use crate::partitioning::{Keys, configured};
use crate::saga::partitioner::{Partitioner, PartitionerGuess};

/// What `doctor` says of these keys. Names partitions, never keys.
pub(super) fn check(setting: PartitionerSetting, found: &[Keys]) -> Check {
    const CHECK: &str = "partitioner";
    let explains = |partitioner: Partitioner, keys: &Keys| {
        keys.keys.iter().all(|key| partitioner.partition(key.as_str().as_bytes(), keys.of) == keys.partition.partition)
    };
    let strange = |partitioner| -> Vec<String> {
        found.iter().filter(|keys| !explains(partitioner, keys)).map(|keys| keys.partition.to_string()).collect()
    };
    if let Some(fixed) = configured(setting) {
        let strange = strange(fixed);
        let name = fixed.as_str();
        return match strange.as_slice() {
            [] => ok(CHECK, &format!("{name}, as configured, explains the newest keys")),
            strange => warning(
                CHECK,
                format!("{name}, as configured, does not explain newest keys of {}", strange.join(", ")),
                "set topics.partitioner to what the producers use; auto finds it out",
            ),
        };
    }
    let mut guess = PartitionerGuess::default();
    for keys in found {
        for key in &keys.keys {
            guess.see(key.as_str().as_bytes(), keys.partition.partition, keys.of);
        }
    }
    match (guess.only(), guess.partitioner()) {
        (Some(only), _) => match strange(only).as_slice() {
            [] => ok(CHECK, &format!("{} explains the newest keys", only.as_str())),
            strange => warning(
                CHECK,
                format!("{} explains the newest keys but for a few of {}", only.as_str(), strange.join(", ")),
                "let the producers of those use the same partitioner; the log names records: step event in another partition",
            ),
        },
        (_, Some(first)) => ok(CHECK, &format!("{} until a key tells it apart from the others", first.as_str())),
        (_, None) => {
            let fewest = Partitioner::ALL.map(|partitioner| (strange(partitioner), partitioner));
            let fewest = fewest.into_iter().min_by_key(|(strange, _)| strange.len());
            let but = fewest.map(|(strange, best)| format!("; {} all but those of {}", best.as_str(), strange.join(", ")));
            Check {
                check: CHECK.into(),
                verdict: Verdict::Problem,
                detail: format!("none explains the newest keys, replays stop{}", but.unwrap_or_default()),
                remedy: Some("let all producers of step events use one partitioner, and set topics.partitioner to it".into()),
                exit: None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::saga::position::{SagaId, TopicPartition};

    /// Forty keys where `partitioner` of them puts them.
    fn found(partitioner: impl Fn(usize) -> Partitioner) -> Vec<Keys> {
        let keys = |n| Keys { partition: TopicPartition::new("t", n), of: 3, keys: Vec::new() };
        let mut found: Vec<Keys> = (0..3).map(keys).collect();
        for n in 0..40 {
            let key = format!("order-{n}");
            found[partitioner(n).partition(key.as_bytes(), 3) as usize].keys.push(key.as_str().into());
        }
        found
    }

    #[test]
    fn doctor_says_which_partitioner_explains_the_keys_and_where_none_does() {
        use PartitionerSetting::{Auto, Crc32, Murmur2};
        let verdict = |setting, found: &[Keys]| {
            let check = check(setting, found);
            (check.verdict, check.detail)
        };
        let crc32 = found(|_| Partitioner::Crc32);
        assert_eq!(verdict(Auto, &crc32), (Verdict::Ok, "crc32 explains the newest keys".into()));
        assert_eq!(verdict(Crc32, &crc32).0, Verdict::Ok);
        let (configured, detail) = verdict(Murmur2, &crc32);
        assert!(configured == Verdict::Warning && detail.contains("t[0]"), "{detail}");
        assert_eq!(verdict(Auto, &[]), (Verdict::Ok, "murmur2 until a key tells it apart from the others".into()));

        let mut mixed = found(|_| Partitioner::Murmur2);
        let stray = (0..).map(|n| SagaId::new(format!("stray-{n}")));
        let elsewhere = |key: &SagaId| Partitioner::ALL.iter().all(|of| of.partition(key.as_str().as_bytes(), 3) != 1);
        let mut strays = stray.filter(elsewhere);
        mixed[1].keys.extend(strays.next());
        let (one, detail) = verdict(Auto, &mixed);
        assert_eq!((one, &*detail), (Verdict::Warning, "murmur2 explains the newest keys but for a few of t[1]"));
        mixed[1].keys.extend(strays.take(20));
        let (none, detail) = verdict(Auto, &mixed);
        assert_eq!(none, Verdict::Problem);
        assert!(detail.ends_with("murmur2 all but those of t[1]"), "{detail}");
        assert!(!detail.contains("stray"), "no keys: {detail}");
    }
}
