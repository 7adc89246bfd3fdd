//! What this process keeps of its privileges once it serves: capabilities, and system calls.
//!
//! Owns the decision and its line. Given up is what nobody needs any more behind the start; what a
//! kernel or a container does not let us give up is told of, and served with. Nothing comes back.

use super::log::Log;
use super::options::{Filtered, NetworkSetup};
use crate::metrics::{Registry, names};
use crate::node::firewall::Backend;
use crate::plugin::{Journal, Level};
use crate::sys::capabilities::{self, Capability};
use crate::sys::seccomp::{self, Programs, Unlisted};
use crate::sys::unix;

/// What is given up, when the time has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Privileges {
    /// The capabilities that are kept, as far as they are there; `None` keeps all.
    kept: Option<Vec<Capability>>,
    programs: Programs,
    filtered: Filtered,
}

impl Privileges {
    /// For a server that maintains `network` with this backend.
    ///
    /// Interface and rules are repaired and removed until the end: NET_ADMIN. `iptables-legacy` opens
    /// a raw socket: NET_RAW. A reload may bind port 53 of a new address at any time, if only by
    /// SIGUSR1: NET_BIND_SERVICE.
    pub(super) fn of_server(network: &NetworkSetup, backend: Backend) -> Privileges {
        let changes_network = network.interface.is_some() || backend != Backend::None;
        let mut kept = vec![Capability::CAP_NET_BIND_SERVICE];
        kept.extend(changes_network.then_some(Capability::CAP_NET_ADMIN));
        kept.extend((backend == Backend::Iptables).then_some(Capability::CAP_NET_RAW));
        Privileges::with(kept, network, backend)
    }

    /// For a guardian, which removes rules of this backend and does nothing else.
    pub(super) fn of_guardian(network: &NetworkSetup, backend: Backend) -> Privileges {
        let kept = match backend {
            Backend::None => Vec::new(),
            Backend::Nftables => vec![Capability::CAP_NET_ADMIN],
            Backend::Iptables => vec![Capability::CAP_NET_ADMIN, Capability::CAP_NET_RAW],
        };
        Privileges::with(kept, network, backend)
    }

    /// For a server that changes nothing on its machine: development mode, a Corefile of one's own.
    pub(super) fn of_development() -> Privileges {
        let (programs, filtered) = (Programs::None, Filtered::Refused);
        Privileges { kept: Some(vec![Capability::CAP_NET_BIND_SERVICE]), programs, filtered }
    }

    fn with(kept: Vec<Capability>, network: &NetworkSetup, backend: Backend) -> Privileges {
        Privileges {
            kept: network.drops_capabilities.then_some(kept),
            programs: match backend {
                Backend::Iptables => Programs::Firewall,
                Backend::Nftables | Backend::None => Programs::None,
            },
            filtered: network.filtered,
        }
    }

    /// Lets programs have what they need where this process is not the superuser's. For the start,
    /// before there are threads.
    pub(super) fn hand_on(&self) {
        if self.programs == Programs::Firewall && unix::own_user() != 0 {
            capabilities::hand_on(&[Capability::CAP_NET_ADMIN, Capability::CAP_NET_RAW]);
        }
    }

    /// Gives up the rest, in all threads, and says what is left. Blocks for some milliseconds, and five
    /// seconds at most.
    pub(super) fn give_up(&self, log: &Log, metrics: &Registry) {
        let results = self.reduce();
        let reduced = |what, is_reduced| {
            let gauge = metrics.gauge(&names::PRIVILEGES_REDUCED, &[what]);
            gauge.set(if is_reduced { 1.0 } else { 0.0 });
        };
        reduced("capabilities", matches!(results.capabilities, Some(Ok(_))));
        reduced("system_calls", matches!(results.system_calls, Some(Ok(_))));
        let mut left = Vec::new();
        match results.capabilities {
            Some(Ok(kept)) if kept.is_empty() => left.push("no capability".to_owned()),
            Some(Ok(kept)) => left.push(kept.join(", ")),
            Some(Err(why)) => log.line(
                Level::Warning,
                format_args!(
                    "Capabilities could not be given up in all threads, serving on: {why}"
                ),
            ),
            None => {}
        }
        match results.system_calls {
            Some(Ok(count)) => left.push(format!("{count} system calls")),
            Some(Err(why)) => log.line(
                Level::Warning,
                format_args!("System calls could not be filtered, serving on: {why}"),
            ),
            None => {}
        }
        if !left.is_empty() {
            log.line(Level::Info, format_args!("Privileges reduced to {}", left.join(" and ")));
        }
    }

    /// As [`Privileges::give_up`], for a process that has nobody to tell.
    pub(super) fn give_up_silently(&self) {
        // The server gives up the same, and says what it could not.
        let _ = self.reduce();
    }

    fn reduce(&self) -> Results {
        // Capabilities first: the filter lists no call that changes them.
        let capabilities = self.kept.as_ref().map(|kept| {
            let kept: Vec<Capability> =
                kept.iter().copied().filter(|one| capabilities::has(*one)).collect();
            let names = kept.iter().map(|one| one.to_string().replace("CAP_", "")).collect();
            capabilities::keep_only(&kept).map(|()| names).map_err(|error| error.to_string())
        });
        let unlisted = match self.filtered {
            Filtered::Not => None,
            Filtered::Refused => Some(Unlisted::Refused),
            Filtered::Deadly => Some(Unlisted::Deadly),
        };
        let system_calls = unlisted.map(|unlisted| {
            seccomp::install(self.programs, unlisted).map_err(|missing| missing.to_string())
        });
        Results { capabilities, system_calls }
    }
}

/// What came of it; `None` for what was not asked for.
struct Results {
    /// The names of what is kept.
    capabilities: Option<Result<Vec<String>, String>>,
    /// How many are listed.
    system_calls: Option<Result<usize, String>>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn network(interface: Option<&str>) -> NetworkSetup {
        NetworkSetup {
            rewrites: Vec::new(),
            interface: interface.map(str::to_owned),
            firewall: crate::node::firewall::Wanted::Auto,
            has_guardian: false,
            sync_interval: Duration::from_secs(60),
            teardown: true,
            health_port: 8080,
            hands_over: true,
            runtime_directory: "/run/nodens".into(),
            drops_capabilities: true,
            filtered: Filtered::Refused,
        }
    }

    fn kept(privileges: &Privileges) -> String {
        let kept = privileges.kept.iter().flatten();
        kept.map(|one| one.to_string().replace("CAP_NET_", "")).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_server_keeps_what_its_interface_rules_and_reloads_need() {
        use Backend::{Iptables, Nftables, None as Nobody};
        for (interface, backend, words, programs) in [
            (Some("nodelocaldns"), Iptables, "BIND_SERVICE ADMIN RAW", Programs::Firewall),
            (None, Iptables, "BIND_SERVICE ADMIN RAW", Programs::Firewall),
            (None, Nftables, "BIND_SERVICE ADMIN", Programs::None),
            (Some("lo"), Nobody, "BIND_SERVICE ADMIN", Programs::None),
            (None, Nobody, "BIND_SERVICE", Programs::None),
        ] {
            let privileges = Privileges::of_server(&network(interface), backend);
            assert_eq!(kept(&privileges), words, "{interface:?} {backend:?}");
            assert_eq!(privileges.programs, programs);
        }
    }

    #[test]
    fn a_guardian_keeps_what_removes_rules() {
        for (backend, words) in
            [(Backend::Iptables, "ADMIN RAW"), (Backend::Nftables, "ADMIN"), (Backend::None, "")]
        {
            assert_eq!(kept(&Privileges::of_guardian(&network(None), backend)), words);
        }
    }

    #[test]
    fn both_can_be_left_as_they_are() {
        let network =
            NetworkSetup { drops_capabilities: false, filtered: Filtered::Not, ..network(None) };
        let privileges = Privileges::of_server(&network, Backend::None);
        let results = privileges.reduce();
        assert!(results.capabilities.is_none() && results.system_calls.is_none());
    }
}
