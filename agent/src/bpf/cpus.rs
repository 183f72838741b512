//! How many CPUs tables have room for: those that the machine has, not those that could be put in while it runs. A guest may
//! be told of hundreds of these, and a row for each is memory.

use std::fs;

/// CPUs that are there, also where they are switched off, by the kernel's numbers.
const PRESENT: &str = "/sys/devices/system/cpu/present";

/// One more than the highest number of a CPU that the machine has, and at most `possible`, which it is also where the kernel
/// does not say.
pub fn present(possible: usize) -> usize {
    let told = fs::read_to_string(PRESENT).ok();
    told.and_then(|list| behind_the_last(&list)).map_or(possible, |present| present.min(possible))
}

/// Of a list as the kernel writes them, `0-3,8`.
fn behind_the_last(list: &str) -> Option<usize> {
    list.trim().rsplit([',', '-']).next()?.parse::<usize>().ok()?.checked_add(1)
}

#[cfg(test)]
mod tests {
    use super::{behind_the_last, present};

    #[test]
    fn tables_reach_to_the_last_cpu_of_the_kernels_list() {
        for (list, cpus) in [("0\n", 1), ("0-1\n", 2), ("0-3,8-11\n", 12), ("0,2,5", 6)] {
            assert_eq!(behind_the_last(list), Some(cpus), "{list}");
        }
        for list in ["", "\n", "0-", "none", "18446744073709551615"] {
            assert_eq!(behind_the_last(list), None, "{list}");
        }
    }

    #[test]
    fn there_are_no_more_than_possible() {
        assert_eq!(present(1), 1);
        assert!((1..=1 << 20).contains(&present(1 << 20)));
    }
}
