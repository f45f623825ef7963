//! A cache bounded by bytes: what was not used for longest goes first.

use std::sync::{Arc, Mutex, PoisonError};

use lru::LruCache;

pub struct ByteCache<V> {
    most: usize,
    inner: Mutex<Inner<V>>,
}

struct Inner<V> {
    entries: LruCache<String, (Arc<V>, usize)>,
    bytes: usize,
}

impl<V> ByteCache<V> {
    pub fn new(most_bytes: u64) -> Self {
        let most = usize::try_from(most_bytes).unwrap_or(usize::MAX);
        Self { most, inner: Mutex::new(Inner { entries: LruCache::unbounded(), bytes: 0 }) }
    }

    pub fn get(&self, key: &str) -> Option<Arc<V>> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.entries.get(key).map(|(value, _)| value.clone())
    }

    /// `weight`: its bytes; one that is larger than the cache is not kept.
    pub fn put(&self, key: String, value: Arc<V>, weight: usize) {
        if weight > self.most {
            return;
        }
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.bytes += weight;
        if let Some((_, (_, old))) = inner.entries.push(key, (value, weight)) {
            inner.bytes -= old;
        }
        while inner.bytes > self.most {
            let Some((_, (_, old))) = inner.entries.pop_lru() else { break };
            inner.bytes -= old;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_never_holds_more_bytes_than_it_may() {
        let cache = ByteCache::new(10);
        cache.put("a".into(), Arc::new(1), 4);
        cache.put("b".into(), Arc::new(2), 4);
        assert_eq!(cache.get("a").as_deref(), Some(&1));
        cache.put("c".into(), Arc::new(3), 4);
        assert_eq!((cache.get("a").as_deref(), cache.get("b"), cache.get("c").as_deref()), (Some(&1), None, Some(&3)));
        cache.put("c".into(), Arc::new(4), 6);
        assert_eq!((cache.get("a").as_deref(), cache.get("c").as_deref()), (Some(&1), Some(&4)));
        cache.put("d".into(), Arc::new(5), 11);
        assert_eq!(cache.get("d"), None);
    }
}
