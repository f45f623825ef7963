//! In which partitions of the replay log the record of a request may be. Records go to the partition of their request, and
//! that is its key's by the partition count of then: once the count was raised, an earlier record lies elsewhere. Pure.

use crate::saga::partitioner::partition;

/// The partition counts of the requests topic under which the log was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Homes {
    now: i32,
    /// Others than that of now.
    earlier: Vec<i32>,
    /// There are no others. If that is not known, a record may be anywhere.
    complete: bool,
    /// Partitions of the log.
    log: i32,
}

impl Homes {
    /// `written_under`: all counts that are known; `complete`: there were no others.
    pub fn new(now: i32, written_under: &[i32], complete: bool, log: i32) -> Self {
        let earlier = written_under.iter().copied().filter(|count| *count != now && *count > 0).collect();
        Self { now, earlier, complete, log: log.max(now) }
    }

    /// Of whose past nothing is known.
    pub fn of_unknown(now: i32) -> Self {
        Self::new(now, &[], false, now)
    }

    /// Nothing is to be learned, with so many partitions of the log.
    pub fn is_known(&self, log: i32) -> bool {
        self.complete && self.log == log && self.now == log
    }

    pub fn now(&self) -> i32 {
        self.now
    }

    /// Where requests with this key go now.
    pub fn home(&self, key: &[u8]) -> i32 {
        partition(key, self.now)
    }

    /// Of a request with this key that was found in the partition.
    pub fn of_key(&self, key: &[u8], found: i32) -> Vec<i32> {
        // Somebody put it there who counts otherwise, and may have put it anywhere before.
        if !self.complete || self.home(key) != found {
            return self.all();
        }
        self.sorted(self.earlier.iter().map(|count| partition(key, *count)), found)
    }

    /// Of all requests whose partition this is.
    pub fn of_partition(&self, found: i32) -> Vec<i32> {
        if !self.complete || found >= self.now {
            return self.all();
        }
        // A key's partition is its hash modulo the count: of two counts the remainders agree modulo what divides both.
        let agree = |count: &i32| {
            let common = greatest_common_divisor(*count, self.now);
            (0..*count).filter(move |other| other % common == found % common)
        };
        self.sorted(self.earlier.iter().flat_map(agree), found)
    }

    fn all(&self) -> Vec<i32> {
        (0..self.earlier.iter().copied().fold(self.log, i32::max)).collect()
    }

    fn sorted(&self, others: impl Iterator<Item = i32>, found: i32) -> Vec<i32> {
        let mut homes: Vec<i32> = others.chain([found]).collect();
        homes.sort_unstable();
        homes.dedup();
        homes
    }
}

fn greatest_common_divisor(one: i32, other: i32) -> i32 {
    if other == 0 { one.max(1) } else { greatest_common_divisor(other, one % other) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_raise_a_record_is_in_its_requests_partition() {
        let homes = Homes::new(12, &[12], true, 12);
        assert_eq!(
            (homes.of_key(b"order-1", homes.home(b"order-1")), homes.of_partition(5)),
            (vec![homes.home(b"order-1")], vec![5])
        );
    }

    #[test]
    fn after_raises_it_may_be_wherever_an_earlier_count_put_its_key_and_nowhere_else() {
        let homes = Homes::new(24, &[4, 24, 6], true, 24);
        for key in (0..200).map(|number| format!("order-{number}")) {
            let found = homes.home(key.as_bytes());
            let of_key = homes.of_key(key.as_bytes(), found);
            assert!([4, 6, 24].iter().all(|count| of_key.contains(&partition(key.as_bytes(), *count))) && of_key.len() <= 3);
            let of_partition = homes.of_partition(found);
            assert!(of_key.iter().all(|home| of_partition.contains(home)), "{key}: {of_key:?} {of_partition:?}");
        }
        assert_eq!(homes.of_partition(15), [3, 15], "of 4: 3, of 6: 3");
        assert_eq!(Homes::new(9, &[6], true, 9).of_partition(7), [1, 4, 7]);
    }

    #[test]
    fn where_the_past_is_not_known_or_somebody_counted_otherwise_it_may_be_anywhere() {
        let everywhere: Vec<i32> = (0..4).collect();
        assert_eq!(Homes::of_unknown(4).of_partition(1), everywhere);
        let homes = Homes::new(3, &[3], true, 4);
        let home = homes.home(b"order-1");
        assert_eq!((homes.of_key(b"order-1", home), homes.of_key(b"order-1", (home + 1) % 3)), (vec![home], everywhere.clone()));
        assert_eq!(homes.of_partition(3), everywhere, "of the log alone");
    }
}
