//! The memory that the process may use: `-memory-limit`, else a share of its cgroup's limit.
//!
//! Owns what the flag's text means and where the kernel tells the limit. Reads through a function,
//! so that tests need no cgroup.

use crate::sys::cgroup::{Version, directories};

/// Hundredths of the cgroup's limit that are the process's own when no flag says: sockets' buffers
/// and files that were read count there, too.
const OF_CGROUP: u64 = 80;

/// The least limit in octets: the program itself needs half of it.
pub(super) const LEAST: u64 = 16 << 20;

/// What `-memory-limit` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Limit {
    /// The cgroup's.
    OfCgroup,
    /// None.
    Unlimited,
    /// So many octets.
    Octets(u64),
}

impl Limit {
    /// The octets that the process may use; `None` without a limit. `read` gives a file's text.
    pub(super) fn octets(self, read: impl Fn(&str) -> Option<String>) -> Option<u64> {
        match self {
            Limit::OfCgroup => of_cgroup(read),
            Limit::Unlimited => None,
            Limit::Octets(octets) => Some(octets),
        }
    }
}

/// What the flag means: "" leaves it to the cgroup, 0 is no limit; else octets, or a Kubernetes quantity
/// (`64Mi`, `100M`).
///
/// # Errors
///
/// Whatever else, and less than [`LEAST`].
pub(super) fn parse(text: &str) -> Result<Limit, ()> {
    if text.is_empty() {
        return Ok(Limit::OfCgroup);
    }
    let digits = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit {
        "" => 1,
        "k" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        _ => return Err(()),
    };
    let octets = number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor));
    match octets.ok_or(())? {
        0 => Ok(Limit::Unlimited),
        octets if octets < LEAST => Err(()),
        octets => Ok(Limit::Octets(octets)),
    }
}

/// The limit by the cgroup, version 2 or 1: the least of the group's own and those above it. `None`
/// when there is none. `read` gives a file's text.
fn of_cgroup(read: impl Fn(&str) -> Option<String>) -> Option<u64> {
    let limits = directories(&read, "memory").into_iter().filter_map(|(version, path)| {
        let file = match version {
            Version::Two => "memory.max",
            Version::One => "memory.limit_in_bytes",
        };
        // `max`, or in version 1 a number near 2^63, is no limit.
        let limit = read(&format!("{path}/{file}"))?.trim().parse::<u64>().ok()?;
        (limit < 1 << 60).then_some(limit)
    });
    Some((limits.min()? / 100 * OF_CGROUP).max(LEAST))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(files: &[(&str, &str)]) -> Option<u64> {
        Limit::OfCgroup.octets(|path| {
            let file = files.iter().find(|(known, _)| *known == path);
            file.map(|(_, text)| (*text).to_owned())
        })
    }

    #[test]
    fn the_flag_takes_octets_and_quantities() {
        assert_eq!(parse(""), Ok(Limit::OfCgroup));
        assert_eq!(parse("0"), Ok(Limit::Unlimited));
        assert_eq!(parse("64Mi"), Ok(Limit::Octets(64 << 20)));
        assert_eq!(parse("100M"), Ok(Limit::Octets(100_000_000)));
        assert_eq!(parse("20000000"), Ok(Limit::Octets(20_000_000)));
        for wrong in ["1", "Mi", "-5", "64MB", "1.5Gi", "99999999999999999999", "15Mi"] {
            assert_eq!(parse(wrong), Err(()), "{wrong}");
        }
    }

    #[test]
    fn the_least_limit_above_the_process_counts_in_version_2() {
        let files = [
            ("/proc/self/cgroup", "0::/pods/one\n"),
            ("/sys/fs/cgroup/pods/one/memory.max", "max\n"),
            ("/sys/fs/cgroup/pods/memory.max", "104857600\n"),
        ];
        assert_eq!(limit(&files), Some(104_857_600 / 100 * 80));
    }

    #[test]
    fn version_1_has_a_hierarchy_of_its_own() {
        let files = [
            ("/proc/self/cgroup", "5:cpu,cpuacct:/x\n4:memory:/kube/pod\n"),
            ("/sys/fs/cgroup/memory/kube/pod/memory.limit_in_bytes", "104857600\n"),
            ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
        ];
        assert_eq!(limit(&files), Some(104_857_600 / 100 * 80));
    }

    #[test]
    fn a_container_sees_its_own_group_at_the_root() {
        let files = [
            ("/proc/self/cgroup", "4:memory:/kubepods/pod1\n"),
            ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "104857600\n"),
        ];
        assert_eq!(limit(&files), Some(104_857_600 / 100 * 80));
        assert_eq!(limit(&[("/proc/self/cgroup", "0::/\n")]), None);
    }
}
