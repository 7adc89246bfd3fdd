//! Where the kernel tells the limits of the cgroup that this process is in.
//!
//! Owns the paths, of version 2 and of version 1. Reads through a function, so that tests need no
//! cgroup. Never decides what a limit means.

use std::fs;
use std::time::Duration;

/// Which files a directory has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// `memory.max`, `cpu.max`.
    Two,
    /// `memory.limit_in_bytes`, `cpu.cfs_quota_us`.
    One,
}

/// The directories of this process's group for a controller (`memory`, `cpu`) and of all groups above
/// it; some may not be there. `read` gives a file's text.
pub fn directories(
    read: &impl Fn(&str) -> Option<String>,
    controller: &str,
) -> Vec<(Version, String)> {
    let groups = read("/proc/self/cgroup").unwrap_or_default();
    let mut found = Vec::new();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let (version, root) = match controllers {
            "" => (Version::Two, "/sys/fs/cgroup".to_owned()),
            _ if controllers.split(',').any(|word| word == controller) => {
                (Version::One, format!("/sys/fs/cgroup/{controller}"))
            }
            _ => continue,
        };
        let mut path = path.trim_end_matches('/');
        loop {
            found.push((version, format!("{root}{path}")));
            match path.rsplit_once('/') {
                Some((above, _)) => path = above,
                None => break,
            }
        }
    }
    found
}

/// A file's text.
pub fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok()
}

/// How much CPU time the group may use in a second of all cores together: the least of its own quota and
/// of those above it. `None` when there is none.
pub fn cpu_quota(read: &impl Fn(&str) -> Option<String>) -> Option<Duration> {
    let quotas = directories(read, "cpu").into_iter().filter_map(|(version, path)| {
        let number = |text: &str| text.trim().parse::<u32>().ok();
        let (quota, period) = match version {
            Version::Two => {
                let text = read(&format!("{path}/cpu.max"))?;
                let (quota, period) = text.trim().split_once(' ')?;
                (number(quota)?, number(period)?)
            }
            Version::One => (
                number(&read(&format!("{path}/cpu.cfs_quota_us"))?)?,
                number(&read(&format!("{path}/cpu.cfs_period_us"))?)?,
            ),
        };
        (period > 0).then(|| Duration::from_secs(quota.into()) / period)
    });
    quotas.min()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quota(files: &[(&str, &str)]) -> Option<Duration> {
        cpu_quota(&|path: &str| {
            let file = files.iter().find(|(known, _)| *known == path);
            file.map(|(_, text)| (*text).to_owned())
        })
    }

    #[test]
    fn the_least_quota_above_the_process_counts() {
        let files = [
            ("/proc/self/cgroup", "0::/pods/one\n"),
            ("/sys/fs/cgroup/pods/one/cpu.max", "max 100000\n"),
            ("/sys/fs/cgroup/pods/cpu.max", "10000 100000\n"),
            ("/sys/fs/cgroup/cpu.max", "200000 100000\n"),
        ];
        assert_eq!(quota(&files), Some(Duration::from_millis(100)));
        assert_eq!(quota(&files[..2]), None);
    }

    #[test]
    fn version_1_has_quota_and_period_in_two_files() {
        let files = [
            ("/proc/self/cgroup", "6:memory:/small\n5:cpu,cpuacct:/kube\n"),
            ("/sys/fs/cgroup/cpu/small/cpu.cfs_quota_us", "1000\n"),
            ("/sys/fs/cgroup/cpu/small/cpu.cfs_period_us", "100000\n"),
            ("/sys/fs/cgroup/cpu/kube/cpu.cfs_quota_us", "150000\n"),
            ("/sys/fs/cgroup/cpu/kube/cpu.cfs_period_us", "100000\n"),
            ("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n"),
            ("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n"),
        ];
        assert_eq!(quota(&files), Some(Duration::from_millis(1500)));
        assert_eq!(quota(&[]), None);
    }
}
