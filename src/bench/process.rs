//! What a process costs: time, memory, and the kernel's memory for all sockets. Read from `/proc`; absent elsewhere.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::fs;

/// Processes that are watched together, such as a server and its workers.
#[derive(Debug, Clone, Default)]
pub struct Watched(pub Vec<u32>);

impl Watched {
    /// This process.
    pub fn this() -> Self {
        Self(vec![std::process::id()])
    }

    fn sum(&self, read: impl Fn(u32) -> Option<f64>) -> Option<f64> {
        (!self.0.is_empty()).then(|| self.0.iter().map(|pid| read(*pid)).sum())?
    }

    /// Time spent so far, user and system. *Units*: microseconds, to the kernel's tick of 10 ms.
    pub fn cpu_us(&self) -> Option<f64> {
        self.sum(|pid| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            // The second field, the name, may hold anything but ends with the last parenthesis.
            let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
            let ticks = fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?;
            Some(ticks * 1e6 / rustix::param::clock_ticks_per_second() as f64)
        })
    }

    /// Resident memory now. *Units*: KiB.
    pub fn rss_kib(&self) -> Option<f64> {
        self.sum(|pid| status(pid, "VmRSS:"))
    }

    /// Most resident memory so far. *Units*: KiB.
    pub fn rss_peak_kib(&self) -> Option<f64> {
        self.sum(|pid| status(pid, "VmHWM:"))
    }
}

fn status(pid: u32, name: &str) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Kernel memory of all TCP sockets of this machine. *Units*: KiB.
pub fn tcp_kib() -> Option<f64> {
    let sockets = fs::read_to_string("/proc/net/sockstat").ok()?;
    let line = sockets.lines().find_map(|line| line.strip_prefix("TCP:"))?;
    let pages: f64 = line.split_whitespace().skip_while(|word| *word != "mem").nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as f64 / 1024.0)
}

/// Allows as many descriptors as the system lets us have: ten thousand readers are ten thousand sockets.
pub fn raise_descriptor_limit(wanted: u64) -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    let enough = |limit: Option<u64>| limit.is_none_or(|limit| limit >= wanted);
    if !enough(limit.current) {
        let maximum = if enough(limit.maximum) { limit.maximum } else { Some(wanted) };
        let raised = Rlimit { current: maximum, maximum };
        // Only the superuser may raise the hard limit; everyone else gets what it allows.
        if setrlimit(Resource::Nofile, raised).is_err() {
            let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
        }
    }
    getrlimit(Resource::Nofile).current
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_a_size_and_nobody_has_none() {
        assert!(Watched::this().rss_kib().unwrap() > 100.0);
        assert!(Watched::this().rss_peak_kib() >= Watched::this().rss_kib().map(|kib| kib * 0.5));
        assert!(Watched::this().cpu_us().is_some());
        assert_eq!(Watched::default().rss_kib(), None);
        assert!(tcp_kib().is_some());
    }
}
