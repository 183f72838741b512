//! Java: a process that has HotSpot's library mapped. Its threads hand requests to each other by waking up.
//!
//! Other machines that run Java, such as GraalVM's native images, have no such library and are not known here.

use crate::host::procfs::Procfs;

const LIBRARY: &str = "/libjvm.so";

/// Whether the process runs Java; not where its mappings cannot be read.
pub fn runs_in(proc: &Procfs, pid: u32) -> bool {
    proc.maps(pid).is_some_and(|maps| maps.lines().any(|line| line.ends_with(LIBRARY)))
}
