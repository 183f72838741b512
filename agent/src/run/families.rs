//! Which probe families are attached now: read wherever their metrics are made, changed when one is switched on or off.
//!
//! One lock, held for a copy of at most a dozen references.

use std::sync::{PoisonError, RwLock};

use crate::model::metric::Metric;
use crate::model::probe::FamilySpec;
use crate::probes::FAMILIES;

/// Families that are attached, whole or in part, in the registry's order; the metrics of the others are absent, never zero.
#[derive(Debug, Default)]
pub struct Families(RwLock<Vec<&'static FamilySpec>>);

impl Families {
    pub fn new(attached: Vec<&'static FamilySpec>) -> Self {
        Self(RwLock::new(attached))
    }

    pub fn list(&self) -> Vec<&'static FamilySpec> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn is_on(&self, name: &str) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).iter().any(|family| family.name == name)
    }

    /// Puts a family in or out.
    pub fn set(&self, name: &str, on: bool) {
        let mut attached = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let wanted = |family: &FamilySpec| {
            if family.name == name { on } else { attached.iter().any(|it| it.name == family.name) }
        };
        *attached = FAMILIES.iter().copied().filter(|family| wanted(family)).collect();
    }
}

/// Metrics of `family` that stand still while others of `attached` are missing.
pub fn still(family: &FamilySpec, attached: &[&'static FamilySpec]) -> Vec<&'static Metric> {
    let missing = |name: &str| !attached.iter().any(|family| family.name == name);
    family.beside.iter().filter(|(_, other)| missing(other)).map(|(metric, _)| *metric).collect()
}

#[cfg(test)]
mod tests {
    use super::{Families, still};
    use crate::probes::{scheduler, syscall};

    #[test]
    fn a_family_goes_and_comes_back_to_its_place() {
        let families = Families::new(vec![&scheduler::FAMILY, &syscall::FAMILY]);
        let names = || families.list().iter().map(|family| family.name).collect::<Vec<_>>();
        families.set("scheduler", false);
        assert_eq!((names(), families.is_on("scheduler")), (vec!["syscall"], false));
        families.set("scheduler", true);
        families.set("scheduler", true);
        assert_eq!((names(), families.is_on("scheduler")), (vec!["scheduler", "syscall"], true));
    }

    #[test]
    fn a_metric_that_needs_two_families_stands_still_without_the_other() {
        let alone = still(&syscall::FAMILY, &[&syscall::FAMILY]);
        assert_eq!(alone.iter().map(|metric| metric.name).collect::<Vec<_>>(), ["seismo.workload.syscalls"]);
        assert!(still(&syscall::FAMILY, &[&syscall::FAMILY, &scheduler::FAMILY]).is_empty());
    }
}
