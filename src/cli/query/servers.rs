//! Whom to ask: the server of the line, or those of resolv.conf; and the names that its search list
//! makes.

use super::settings::{Family, Settings, Way};
use super::words::Lookup;
use crate::app::Machine;
use crate::cli::failure::{Failure, UNAVAILABLE};
use crate::corefile::Surroundings;
use hickory_proto::rr::Name;
use hickory_resolver::system_conf::parse_resolv_conf;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

const RESOLV_CONF: &str = "/etc/resolv.conf";

/// The most servers that are asked; resolv.conf has three.
const SERVERS_MOST: usize = 8;

/// A server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Server {
    /// Where it is.
    pub(super) address: SocketAddr,
    /// What it is called: the word of the line, or its address.
    pub(super) name: String,
}

/// What resolv.conf says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct System {
    servers: Vec<IpAddr>,
    search: Vec<Name>,
    ndots: usize,
}

impl System {
    /// Reads resolv.conf. One that is missing, or names nobody, means this machine, as for dig.
    pub(super) fn read() -> System {
        let text = Machine.read(Path::new(RESOLV_CONF)).unwrap_or_default();
        System::of(&text)
    }

    fn of(text: &[u8]) -> System {
        match parse_resolv_conf(text) {
            Ok((config, options)) => System {
                servers: config.name_servers().iter().map(|server| server.ip).collect(),
                search: config.search().to_vec(),
                ndots: options.ndots,
            },
            Err(_) => System { servers: Vec::new(), search: Vec::new(), ndots: 1 },
        }
    }

    /// The servers of a lookup, at least one.
    pub(super) fn servers(&self, settings: &Settings) -> Result<Vec<Server>, Failure> {
        let port = settings.port.unwrap_or(match settings.way {
            Way::Udp | Way::Tcp => 53,
            Way::Tls | Way::Quic => 853,
            Way::Https(..) => 443,
        });
        let (addresses, name) = match &settings.server {
            Some(word) => (addresses(word)?, Some(word.clone())),
            None if self.servers.is_empty() => (vec![IpAddr::V4(Ipv4Addr::LOCALHOST)], None),
            None => (self.servers.clone(), None),
        };
        let wanted = |address: &IpAddr| match settings.family {
            None => true,
            Some(Family::V4) => address.is_ipv4(),
            Some(Family::V6) => address.is_ipv6(),
        };
        let is_possible = |address: &IpAddr| match settings.source {
            Some(source) => source.is_ipv4() == address.is_ipv4(),
            None => true,
        };
        let servers: Vec<Server> = addresses
            .into_iter()
            .filter(|address| wanted(address) && is_possible(address))
            .take(SERVERS_MOST)
            .map(|address| Server {
                address: SocketAddr::new(address, port),
                name: name.clone().unwrap_or_else(|| address.to_string()),
            })
            .collect();
        if servers.is_empty() {
            let of = name.unwrap_or_else(|| RESOLV_CONF.to_owned());
            return Err(Failure::usage(format!("no address of {of} is of the family asked for")));
        }
        Ok(servers)
    }

    /// The names to ask for, in order, until one is there.
    pub(super) fn names(&self, lookup: &Lookup) -> Vec<Name> {
        let name = &lookup.name;
        if !lookup.is_relative || !lookup.settings.searches {
            return vec![name.clone()];
        }
        let dots = usize::from(name.num_labels()).saturating_sub(1);
        let longer = self.search.iter().filter_map(|domain| {
            let mut longer = name.clone().append_domain(domain).ok()?;
            longer.set_fqdn(true);
            Some(longer)
        });
        let mut names: Vec<Name> = longer.collect();
        match dots >= lookup.settings.ndots.unwrap_or(self.ndots) {
            true => names.insert(0, name.clone()),
            false => names.push(name.clone()),
        }
        names
    }
}

/// The addresses of a server of the line, which may be a name.
fn addresses(word: &str) -> Result<Vec<IpAddr>, Failure> {
    let bare = word.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(word);
    if let Ok(address) = bare.parse() {
        return Ok(vec![address]);
    }
    Machine
        .resolve(word, &[])
        .map_err(|why| Failure::new(UNAVAILABLE, format!("the server '{word}' is unknown: {why}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::{Class, RecordType};

    fn system() -> System {
        System::of(
            b"nameserver 192.0.2.1\nnameserver 2001:db8::1\n\
              search ns.svc.cluster.test svc.cluster.test\noptions ndots:2\n",
        )
    }

    fn settings() -> Settings {
        Settings::default()
    }

    fn asked(system: &System, settings: &Settings) -> Vec<String> {
        let servers = system.servers(settings).unwrap();
        servers.iter().map(|server| server.address.to_string()).collect()
    }

    #[test]
    fn servers_are_the_systems_unless_one_is_named() {
        assert_eq!(asked(&system(), &settings()), ["192.0.2.1:53", "[2001:db8::1]:53"]);
        assert_eq!(asked(&System::of(b""), &settings()), ["127.0.0.1:53"]);
        let named = |server: &str| Settings { server: Some(server.to_owned()), ..settings() };
        assert_eq!(asked(&system(), &named("192.0.2.9")), ["192.0.2.9:53"]);
        assert_eq!(asked(&system(), &named("[::1]")), ["[::1]:53"]);
    }

    #[test]
    fn ports_are_the_transports() {
        let way = |way| Settings { way, family: Some(Family::V4), ..settings() };
        assert_eq!(asked(&system(), &way(Way::Tls)), ["192.0.2.1:853"]);
        assert_eq!(asked(&system(), &Settings { port: Some(5), ..way(Way::Tls) }), ["192.0.2.1:5"]);
        let source = Some("[::1]:0".parse().unwrap());
        assert_eq!(asked(&system(), &Settings { source, ..settings() }), ["[2001:db8::1]:53"]);
    }

    #[test]
    fn a_family_without_addresses_is_a_wrong_line() {
        let server = Some("192.0.2.1".to_owned());
        let settings = Settings { server, family: Some(Family::V6), ..settings() };
        let failure = system().servers(&settings).unwrap_err();
        assert_eq!(failure.code, 64);
        assert_eq!(failure.text, "no address of 192.0.2.1 is of the family asked for");
    }

    #[test]
    fn the_search_list_comes_first_for_names_with_few_dots() {
        let names = |name: &str, searches| {
            let lookup = Lookup {
                name: super::super::name::parse(name).unwrap(),
                is_relative: !name.ends_with('.'),
                qtype: RecordType::A,
                qclass: Class::IN,
                settings: Settings { searches, ..settings() },
            };
            let names = system().names(&lookup);
            names.iter().map(|name| name.to_string()).collect::<Vec<String>>()
        };
        assert_eq!(names("web", false), ["web."]);
        assert_eq!(names("web.", true), ["web."]);
        assert_eq!(
            names("web", true),
            ["web.ns.svc.cluster.test.", "web.svc.cluster.test.", "web."]
        );
        assert_eq!(names("a.b.web", true)[0], "a.b.web.");
    }
}
