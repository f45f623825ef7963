//! Which chains there are, and in which of them a saga may have entries.
//!
//! A saga lives in one partition of one topic, but partition counts are raised and topics are created again; the
//! layout remembers every count and incarnation that ever was. Knows no store.

use std::sync::{PoisonError, RwLock};

use crate::saga::position::{ChainId, SagaId, Topic};

/// A partitioner: key and partition count to partition.
pub type PartitionFn = fn(&[u8], i32) -> i32;

/// One topic of step events (or the replay log) and how it was cut over time.
#[derive(Clone)]
pub struct TopicLayout {
    pub topic: Topic,
    /// The newest of each partition (earlier ones count from 0): a partition that had nothing durable when its topic was
    /// created again is still in its first. Where there is none: 0.
    pub incarnations: Vec<u32>,
    /// Partition counts, newest first; not empty.
    pub partition_counts: Vec<i32>,
    /// Where producers put a key. `None`: not known for sure, so anywhere: every chain is asked, which costs a probe each.
    pub partitioner: Option<fn(&[u8], i32) -> i32>,
}

/// The chains of one topic that one saga's history may run through: a home. A saga has one; where events of it lie in several,
/// the first that has any counts, and the others are not its history.
pub type Home = Vec<ChainId>;

impl TopicLayout {
    fn was_raised(&self) -> bool {
        self.partition_counts.len() > 1
    }

    /// The partitions of the topic, cut into homes, the likely one first.
    fn homes(&self, saga: &SagaId, likely: Option<PartitionFn>) -> Vec<Vec<i32>> {
        let key = saga.as_str().as_bytes();
        if let Some(partition) = self.partitioner {
            let mut home: Vec<i32> = Vec::with_capacity(1);
            for count in &self.partition_counts {
                let found = partition(key, *count);
                if !home.contains(&found) {
                    home.push(found);
                }
            }
            return vec![home];
        }
        let count = self.partition_counts.iter().copied().max().unwrap_or(0);
        if self.was_raised() {
            // Sagas moved when the count was raised, and nobody knows from where to where.
            return vec![(0..count).collect()];
        }
        let mut partitions: Vec<i32> = (0..count).collect();
        if let Some(partition) = likely.filter(|_| count > 0) {
            let home = partition(key, count);
            partitions.sort_by_key(|partition| *partition != home);
        }
        partitions.into_iter().map(|partition| vec![partition]).collect()
    }

    /// The chains of these partitions, newest incarnation first.
    fn chains(&self, partitions: &[i32]) -> Home {
        let newest = partitions.iter().map(|partition| self.incarnation(*partition)).max().unwrap_or(0);
        let mut chains = Vec::new();
        for incarnation in (0..=newest).rev() {
            let there = partitions.iter().filter(|partition| incarnation <= self.incarnation(**partition));
            chains.extend(there.map(|&partition| ChainId { topic: self.topic.clone(), incarnation, partition }));
        }
        chains
    }
    fn incarnation(&self, partition: i32) -> u32 {
        usize::try_from(partition).ok().and_then(|at| self.incarnations.get(at)).copied().unwrap_or(0)
    }

    fn newest(&self, partition: i32) -> ChainId {
        ChainId { topic: self.topic.clone(), incarnation: self.incarnation(partition), partition }
    }
}

/// All layouts; whoever reads topics keeps it current.
#[derive(Default)]
pub struct Chains {
    layouts: RwLock<Vec<TopicLayout>>,
    /// Where most producers put keys, be it certain or not.
    likely: RwLock<Option<PartitionFn>>,
}

impl Chains {
    pub fn new(layouts: Vec<TopicLayout>) -> Self {
        Self { layouts: RwLock::new(layouts), likely: RwLock::default() }
    }

    #[cfg(any(test, feature = "testing"))]
    pub fn set(&self, layouts: Vec<TopicLayout>) {
        *self.layouts.write().unwrap_or_else(PoisonError::into_inner) = layouts;
    }

    /// Where sagas are looked for first. Every process must say the same, or a saga with events in two partitions has two
    /// histories.
    pub fn prefer(&self, partitioner: Option<PartitionFn>) {
        *self.likely.write().unwrap_or_else(PoisonError::into_inner) = partitioner;
    }

    /// From now on producers put keys there.
    pub fn place_by(&self, partitioner: Option<fn(&[u8], i32) -> i32>) {
        for layout in self.layouts.write().unwrap_or_else(PoisonError::into_inner).iter_mut() {
            layout.partitioner = partitioner;
        }
    }

    /// Every chain, newest incarnations first.
    pub fn all(&self) -> Vec<ChainId> {
        let layouts = self.layouts.read().unwrap_or_else(PoisonError::into_inner);
        let all = |layout: &TopicLayout| (0..layout.partition_counts.iter().copied().max().unwrap_or(0)).collect::<Vec<i32>>();
        layouts.iter().flat_map(|layout| layout.chains(&all(layout))).collect()
    }

    /// Their names.
    pub fn topics(&self) -> Vec<String> {
        let layouts = self.layouts.read().unwrap_or_else(PoisonError::into_inner);
        layouts.iter().map(|layout| layout.topic.to_string()).collect()
    }

    /// The replay log has this many partitions now; they never become fewer. Each has a history of its own: what the log says
    /// of a replay stays in the partition of its request, and whoever looks for it asks each where it may be.
    pub fn raise(&self, topic: &str, count: i32) {
        let mut layouts = self.layouts.write().unwrap_or_else(PoisonError::into_inner);
        for layout in layouts.iter_mut().filter(|layout| *layout.topic == *topic) {
            if layout.partition_counts.first().is_none_or(|before| *before < count) {
                layout.partition_counts = vec![count];
            }
        }
    }

    /// How many partitions a topic has; `None`: it is not one of these.
    pub fn partitions_of(&self, topic: &str) -> Option<i32> {
        let layouts = self.layouts.read().unwrap_or_else(PoisonError::into_inner);
        layouts.iter().find(|layout| *layout.topic == *topic).and_then(|layout| layout.partition_counts.first().copied())
    }

    /// The chains that a saga may get its next entry in: of the newest incarnation and partition count only.
    pub fn newest_of(&self, saga: &SagaId) -> Vec<ChainId> {
        let layouts = self.layouts.read().unwrap_or_else(PoisonError::into_inner);
        let mut chains = Vec::new();
        for layout in layouts.iter() {
            let count = layout.partition_counts.first().copied().unwrap_or(0);
            let partitions = match layout.partitioner {
                Some(partition) if count > 0 => {
                    let home = partition(saga.as_str().as_bytes(), count);
                    home..home + 1
                }
                _ => 0..count,
            };
            chains.extend(partitions.map(|partition| layout.newest(partition)));
        }
        chains
    }

    /// The chains that a saga may have entries in. Of each topic the one where its next entry goes comes first.
    pub fn of(&self, saga: &SagaId) -> Vec<ChainId> {
        self.homes_of(saga).concat()
    }

    /// The same, cut into homes: of each topic one, or each partition where it is not known which.
    pub fn homes_of(&self, saga: &SagaId) -> Vec<Home> {
        let likely = *self.likely.read().unwrap_or_else(PoisonError::into_inner);
        let layouts = self.layouts.read().unwrap_or_else(PoisonError::into_inner);
        let homes = layouts.iter().flat_map(|layout| layout.homes(saga, likely).into_iter().map(|home| layout.chains(&home)));
        homes.collect()
    }

    /// Those homes, and every other partition of every topic, which a producer may have chosen against all rules. One home where
    /// sagas moved when a count was raised.
    pub fn everywhere(&self, saga: &SagaId) -> Vec<Home> {
        let mut homes = self.homes_of(saga);
        let layouts = self.layouts.read().unwrap_or_else(PoisonError::into_inner);
        if layouts.iter().any(TopicLayout::was_raised) {
            drop(layouts);
            return vec![self.all()];
        }
        for layout in layouts.iter() {
            for partition in 0..layout.partition_counts.iter().copied().max().unwrap_or(0) {
                let is_here = |chain: &ChainId| chain.topic == layout.topic && chain.partition == partition;
                if !homes.iter().flatten().any(is_here) {
                    homes.push(layout.chains(&[partition]));
                }
            }
        }
        homes
    }

    /// Was a partition count raised? Then a saga's history may run through several partitions, and which ones is as good as the
    /// guess of the partitioner: all that hot has of it is its own.
    pub fn were_raised(&self) -> bool {
        self.layouts.read().unwrap_or_else(PoisonError::into_inner).iter().any(TopicLayout::was_raised)
    }

    /// The chains that what is folded in this one may go on from: of the same partition, and where the count was raised those
    /// that the saga may have moved from.
    pub fn family(&self, saga: &SagaId, chain: &ChainId) -> Vec<ChainId> {
        let homes = self.homes_of(saga);
        let is_own = |other: &ChainId| other.topic == chain.topic && other.partition == chain.partition;
        let raised = self.were_raised();
        let before = (0..chain.incarnation).rev().map(|incarnation| ChainId { incarnation, ..chain.clone() });
        let moved = homes.into_iter().flatten().filter(|other| raised && other.topic == chain.topic && !is_own(other));
        [chain.clone()].into_iter().chain(before).chain(moved).collect()
    }

    /// The chain of this topic where the saga's next entry goes; `None`: not known.
    pub fn home(&self, saga: &SagaId, topic: &str) -> Option<ChainId> {
        let layouts = self.layouts.read().unwrap_or_else(PoisonError::into_inner);
        let layout = layouts.iter().find(|layout| *layout.topic == *topic)?;
        let count = *layout.partition_counts.first()?;
        let partition = (layout.partitioner?)(saga.as_str().as_bytes(), count);
        Some(layout.newest(partition))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::saga::partitioner::partition;

    #[test]
    fn a_saga_may_be_where_any_partition_count_and_incarnation_put_it() {
        let chains = Chains::new(vec![TopicLayout {
            topic: "t".into(),
            incarnations: vec![1; 4],
            partition_counts: vec![4, 2],
            partitioner: Some(partition),
        }]);
        let saga = SagaId::from("order-1");
        let [of_four, of_two] = [4, 2].map(|count| partition(b"order-1", count));
        let mut expected = vec![(1, of_four), (1, of_two), (0, of_four), (0, of_two)];
        expected.dedup();
        if of_four == of_two {
            expected = vec![(1, of_four), (0, of_four)];
        }
        let found: Vec<_> = chains.of(&saga).into_iter().map(|c| (c.incarnation, c.partition)).collect();
        assert_eq!(found, expected);
        assert_eq!(chains.home(&saga, "t").map(|chain| (chain.incarnation, chain.partition)), Some((1, of_four)));
        assert_eq!(chains.all().len(), 8);
    }

    #[test]
    fn without_a_known_partitioner_a_saga_may_be_anywhere() {
        let layout = TopicLayout { topic: "t".into(), incarnations: Vec::new(), partition_counts: vec![3], partitioner: None };
        assert_eq!(Chains::new(vec![layout]).of(&"a".into()).len(), 3);
    }

    #[test]
    fn a_raised_partition_count_adds_chains_and_keeps_the_old_ones() {
        let layout = TopicLayout { topic: "t".into(), incarnations: vec![0, 1], partition_counts: vec![2], partitioner: None };
        let chains = Chains::new(vec![layout]);
        for (topic, count) in [("other", 9), ("t", 1), ("t", 3), ("t", 3)] {
            chains.raise(topic, count);
        }
        assert_eq!(
            (chains.partitions_of("t"), chains.newest_of(&"a".into()).len(), chains.of(&"a".into()).len()),
            (Some(3), 3, 4)
        );
    }

    #[test]
    fn each_partition_has_incarnations_of_its_own() {
        let layout = TopicLayout { topic: "t".into(), incarnations: vec![0, 1], partition_counts: vec![2], partitioner: None };
        let chains = Chains::new(vec![layout]);
        let told = |chains: Vec<ChainId>| chains.into_iter().map(|c| (c.incarnation, c.partition)).collect::<Vec<_>>();
        assert_eq!(told(chains.all()), [(1, 1), (0, 0), (0, 1)]);
        assert_eq!(told(chains.newest_of(&"a".into())), [(0, 0), (1, 1)]);
    }
}
