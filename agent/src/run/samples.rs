//! Recent samples of the running agent: those that alert rules look at, and all of them while somebody queries.
//!
//! Without rules and queries nothing is kept and nothing is gathered. The first query makes the agent keep every metric,
//! beginning with that moment's values; after `samples.history` without a query they are dropped. Bounds are those of
//! the store, twice when rules and queries are there together.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::api::Read;
use crate::metrics::gather;
use crate::model::metric::{Sample, Source};
use crate::store::{Account, Matcher, MetricsConfig, Query, Recent};

/// See the module's documentation.
pub struct Samples {
    config: MetricsConfig,
    /// What the rules read; everything when the configuration says so.
    rules: RwLock<Recent>,
    rules_are_there: bool,
    /// Everything, while queries come.
    asked: RwLock<Option<Recent>>,
    last_query_ms: AtomicI64,
    sources: OnceLock<Arc<[Arc<dyn Source>]>>,
}

impl Samples {
    /// `wanted`: the selectors of all rules.
    pub fn new(config: &MetricsConfig, wanted: Vec<Vec<Matcher>>, rules_are_there: bool) -> Self {
        Self {
            config: config.clone(),
            rules: RwLock::new(Recent::new(config.clone(), wanted)),
            rules_are_there,
            asked: RwLock::default(),
            last_query_ms: AtomicI64::new(i64::MIN),
            sources: OnceLock::new(),
        }
    }

    /// What is gathered, known only once everything else is.
    pub fn set_sources(&self, sources: Arc<[Arc<dyn Source>]>) {
        let first = self.sources.set(sources);
        debug_assert!(first.is_ok(), "sources are set once");
    }

    pub fn account(&self) -> Arc<Account> {
        read(&self.rules).account()
    }

    /// Whether nobody wants samples at present.
    pub fn are_unwanted(&self) -> bool {
        !self.rules_are_there && !self.config.keep_all && read(&self.asked).is_none()
    }

    /// Gathers the present values for whoever wants them, and shows the store to the rules.
    pub fn step(&self, now_ms: i64, rules: impl FnOnce(&Recent)) {
        let history_ms = i64::try_from(self.config.history.0.as_millis()).unwrap_or(i64::MAX);
        let mut asked = write(&self.asked);
        if asked.is_some() && now_ms.saturating_sub(self.last_query_ms.load(Ordering::Relaxed)) > history_ms {
            *asked = None;
        }
        let for_rules = self.rules_are_there || self.config.keep_all;
        if !for_rules && asked.is_none() {
            return;
        }
        let samples = self.gather();
        if let Some(asked) = &mut *asked {
            append(asked, now_ms, &samples);
        }
        drop(asked);
        if for_rules {
            write(&self.rules).append(now_ms, &samples);
            rules(&read(&self.rules));
        }
    }

    /// Lends all samples to a query at `now_ms`.
    pub fn query(&self, now_ms: i64, with: &mut Read<'_>) {
        if self.config.keep_all {
            lend(&read(&self.rules), with);
            return;
        }
        self.last_query_ms.store(now_ms, Ordering::Relaxed);
        if let Some(asked) = &*read(&self.asked) {
            lend(asked, with);
            return;
        }
        let samples = self.gather();
        let mut asked = write(&self.asked);
        // Another query may have been first.
        let store = asked.get_or_insert_with(|| {
            let mut store = read(&self.rules).beside(MetricsConfig { keep_all: true, ..self.config.clone() });
            append(&mut store, now_ms, &samples);
            store
        });
        lend(store, with);
    }

    fn gather(&self) -> Vec<Sample> {
        self.sources.get().map(|sources| gather(sources)).unwrap_or_default()
    }
}

/// The first column has the time of a query, which may be later than the next step is said to be.
fn append(store: &mut Recent, now_ms: i64, samples: &[Sample]) {
    let now_ms = store.reach_ms().map_or(now_ms, |(_, newest_ms)| now_ms.max(newest_ms + 1));
    store.append(now_ms, samples);
}

fn lend(store: &Recent, with: &mut Read<'_>) {
    with(store as &dyn Query, store.reach_ms().map(|(oldest_ms, _)| oldest_ms));
}

fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::BuildInfo;
    use crate::section::Interval;

    fn samples(keep_all: bool, rules: bool) -> Samples {
        let config = MetricsConfig { keep_all, history: Interval::secs(60), ..MetricsConfig::default() };
        let samples = Samples::new(&config, vec![vec![Matcher::equal("__name__", "nothing")]], rules);
        samples.set_sources(Arc::new([Arc::new(BuildInfo("1")) as Arc<dyn Source>]));
        samples
    }

    /// Times of `seismo_build_info` that a query sees.
    fn seen(samples: &Samples, now_ms: i64) -> Vec<i64> {
        let mut times = Vec::new();
        samples.query(now_ms, &mut |store, _| {
            let name = Matcher::equal("__name__", "seismo_build_info");
            store.select(&[name], i64::MIN, i64::MAX, &mut |_, samples| {
                times.extend(samples.iter().map(|(time, _)| *time));
            });
        });
        times
    }

    #[test]
    fn the_first_query_has_an_answer_and_history_begins_with_it() {
        for rules in [false, true] {
            let samples = samples(false, rules);
            let mut stepped = 0;
            samples.step(1_000, |_| stepped += 1);
            assert_eq!(seen(&samples, 1_500), [1_500]);
            samples.step(2_000, |_| stepped += 1);
            assert_eq!(seen(&samples, 3_000), [1_500, 2_000]);
            // A step that is late by its own clock.
            samples.step(1_900, |_| stepped += 1);
            assert_eq!(seen(&samples, 3_000), [1_500, 2_000, 2_001]);
            assert_eq!(stepped, if rules { 3 } else { 0 });
        }
    }

    #[test]
    fn what_nobody_asks_for_any_more_is_dropped() {
        let samples = samples(false, false);
        assert_eq!(seen(&samples, 1_000), [1_000]);
        samples.step(61_000, |_| {});
        assert_eq!(seen(&samples, 61_000), [1_000, 61_000]);
        samples.step(121_001, |_| {});
        assert!(read(&samples.asked).is_none());
        assert_eq!(seen(&samples, 200_000), [200_000]);
    }

    #[test]
    fn with_keep_all_there_is_one_store_and_queries_do_not_make_another() {
        let samples = samples(true, false);
        samples.step(1_000, |_| {});
        samples.step(2_000, |_| {});
        assert_eq!(seen(&samples, 2_500), [1_000, 2_000]);
        assert!(read(&samples.asked).is_none());
    }
}
