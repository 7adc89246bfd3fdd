//! The interface with the local addresses: made, kept whole, taken away.
//!
//! Owns the decision what is ours. A link that is not there is made, as node-cache does it; on one
//! that is there, of any kind, only missing addresses are added. At the end only what was made here,
//! or by a nodens or node-cache before, goes: and none of it while another nodens serves with it.

mod links;
mod mark;

pub use self::links::{Watch, read_news};

use self::links::{Link, Links};
use self::mark::{MOST_ADDRESSES, Made, Mark};
use super::claims::{Claim, is_claimed};
use crate::corefile::system_error_text;
use crate::plugin::Level;
use crate::sys::netlink::Refusal;
use std::net::IpAddr;
use std::path::Path;

/// What stands on links that we made, for people and for a later start.
const ALIAS: &str = "nodens";

/// The longest name of a link (`IFNAMSIZ` without its NUL).
const LONGEST_NAME: usize = 15;

/// What is wrong with the node, by its label in `nodens_node_trouble_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Trouble {
    /// The kernel has no driver for dummy links.
    NoDriver,
    /// The capability NET_ADMIN is missing.
    NoPermission,
    /// A local address is on another link, too.
    AddressElsewhere,
    /// The link is another's: it stays at the end.
    LinkOfOthers,
    /// The link is down, and it is not ours to set up: IPv6 addresses do not answer.
    LinkDown,
    /// The runtime directory cannot be written.
    RuntimeDirectory,
    /// The kernel has no nf_tables.
    NoNfTables,
    /// A table of our name is another's.
    TableOfOthers,
    /// A chain drops what comes in, and rules of our own cannot accept for it.
    PolicyDrops,
    /// Links, addresses or tables could not be read, made or removed.
    Kernel,
}

impl Trouble {
    /// All of them.
    pub const ALL: [Trouble; 10] = [
        Trouble::NoDriver,
        Trouble::NoPermission,
        Trouble::AddressElsewhere,
        Trouble::LinkOfOthers,
        Trouble::LinkDown,
        Trouble::RuntimeDirectory,
        Trouble::NoNfTables,
        Trouble::TableOfOthers,
        Trouble::PolicyDrops,
        Trouble::Kernel,
    ];

    /// The label.
    pub fn label(self) -> &'static str {
        match self {
            Trouble::NoDriver => "no_driver",
            Trouble::NoPermission => "no_permission",
            Trouble::AddressElsewhere => "address_elsewhere",
            Trouble::LinkOfOthers => "link_of_others",
            Trouble::LinkDown => "link_down",
            Trouble::RuntimeDirectory => "runtime_directory",
            Trouble::NoNfTables => "no_nf_tables",
            Trouble::TableOfOthers => "table_of_others",
            Trouble::PolicyDrops => "policy_drops",
            Trouble::Kernel => "kernel",
        }
    }
}

/// What looking after the interface led to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// Lines for the operator.
    pub lines: Vec<(Level, String)>,
    /// How many `interface_add` errors to count.
    pub add_errors: u64,
    /// How many `interface_check` errors to count.
    pub check_errors: u64,
    /// What is wrong, each time it is met.
    pub troubles: Vec<Trouble>,
    /// How many links and addresses had gone and are back.
    pub repaired: u64,
}

impl Report {
    /// Whether all is as it should be now.
    pub fn is_good(&self) -> bool {
        self.add_errors == 0 && self.check_errors == 0
    }

    fn say(&mut self, level: Level, text: String) {
        self.lines.push((level, text));
    }
}

/// Which interface, with which addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// Its name.
    pub name: String,
    /// Its addresses, of one family or both.
    pub addresses: Vec<IpAddr>,
}

/// What was left behind of an interface.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Left {
    /// Whether the link goes, and its addresses with it.
    pub link: bool,
    /// The addresses that go.
    pub addresses: Vec<IpAddr>,
}

/// What is to go: the link, or else addresses of a link that stays.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Removal {
    link: Option<u32>,
    addresses: Vec<(u32, IpAddr)>,
}

/// The interface. Touches nothing before [`Interface::ensure`].
#[derive(Debug)]
pub struct Interface {
    wish: Wish,
    /// `dummy`; tests use what their kernel has.
    kind: &'static str,
    links: Option<Links>,
    mark: Mark,
    made: Made,
    /// What the mark's file says; `None` when it could not be written.
    written: Option<Made>,
    /// The number of the link that was looked at last.
    known: Option<u32>,
    /// Whether everything was there once: what is missing now had gone.
    was_whole: bool,
    /// What was said already, and is not said again.
    said: Vec<Trouble>,
}

impl Interface {
    /// For a wish; what was made is remembered in `directory`.
    pub fn new(wish: Wish, directory: &Path) -> Interface {
        Interface::of_kind("dummy", wish, directory)
    }

    fn of_kind(kind: &'static str, mut wish: Wish, directory: &Path) -> Interface {
        wish.addresses = wish.addresses.iter().map(IpAddr::to_canonical).collect();
        let mark = Mark::new(directory, &wish.name);
        let made = if is_name(&wish.name) { mark.read() } else { Made::default() };
        Interface {
            wish,
            kind,
            links: None,
            mark,
            written: Some(made.clone()),
            made,
            known: None,
            was_whole: false,
            said: Vec::new(),
        }
    }

    /// What this interface needs while its addresses serve.
    pub fn claims(&self) -> Vec<Claim> {
        let addresses = self.wish.addresses.iter().map(|address| Claim::Address(*address));
        [Claim::Link(self.wish.name.clone())].into_iter().chain(addresses).collect()
    }

    /// Makes what is missing. Doing it again changes nothing; never fatal.
    pub fn ensure(&mut self) -> Report {
        let mut report = Report::default();
        match self.make(&mut report) {
            Ok(()) => self.was_whole = true,
            Err(trouble) => {
                report.check_errors += 1;
                self.meet(trouble, &mut report);
            }
        }
        self.remember(&mut report);
        report
    }

    fn make(&mut self, report: &mut Report) -> Result<(), Trouble> {
        let name = self.wish.name.clone();
        let checked = |report: &mut Report, refusal: &Refusal| {
            let why = text(refusal);
            let line = format!("Error checking dummy device {name} - {why}");
            report.say(Level::Error, line);
            trouble(refusal)
        };
        if !is_name(&name) {
            let line = format!("Error checking dummy device {name} - no name of an interface");
            report.say(Level::Error, line);
            return Err(Trouble::Kernel);
        }
        let found = self.links()?.by_name(&name).map_err(|why| checked(report, &why))?;
        let link = match found {
            Some(link) => link,
            None => self.add(report)?,
        };
        let here = self.links()?.addresses().map_err(|why| checked(report, &why))?;
        self.know(&link, &here, report);
        if !link.is_up && self.wish.addresses.iter().any(IpAddr::is_ipv6) {
            // The kernel gives a link that is down no route to its IPv6 addresses.
            if self.made.link == Some(link.index) {
                self.links()?.set_up(link.index).map_err(|why| checked(report, &why))?;
            } else {
                self.meet(Trouble::LinkDown, report);
            }
        }
        self.add_addresses(&link, &here, report)
    }

    /// Makes the link.
    fn add(&mut self, report: &mut Report) -> Result<Link, Trouble> {
        let (name, kind) = (self.wish.name.clone(), self.kind);
        let links = self.links()?;
        let added = links.add(&name, kind).and_then(|()| {
            let link = links.by_name(&name)?;
            link.ok_or_else(|| Refusal::from(std::io::Error::from_raw_os_error(libc::ENODEV)))
        });
        let link = match added {
            Ok(link) => link,
            Err(refusal) if refusal.number() == Some(libc::EEXIST) => {
                // Somebody was quicker: it is theirs.
                return links.by_name(&name).ok().flatten().ok_or(Trouble::Kernel);
            }
            Err(refusal) => {
                let why = text(&refusal);
                report.add_errors += 1;
                report.say(
                    Level::Error,
                    format!("Failed to add non-existent interface {name}: {why}"),
                );
                report.say(Level::Error, format!("Error checking dummy device {name} - {why}"));
                return Err(match refusal.number() {
                    Some(libc::EOPNOTSUPP) => Trouble::NoDriver,
                    _ => trouble(&refusal),
                });
            }
        };
        // For people; the file in the runtime directory says the same.
        let _ = links.set_alias(link.index, ALIAS);
        report.say(Level::Info, format!("Added interface - {name}"));
        report.repaired += u64::from(self.was_whole);
        self.made = Made { link: Some(link.index), addresses: Vec::new() };
        self.known = Some(link.index);
        Ok(link)
    }

    /// Decides whose a link is that was not looked at before.
    fn know(&mut self, link: &Link, here: &[(u32, IpAddr)], report: &mut Report) {
        let elsewhere = |(index, address): &&(u32, IpAddr)| {
            *index != link.index && self.wish.addresses.contains(address)
        };
        if here.iter().any(|entry| elsewhere(&entry)) {
            self.meet(Trouble::AddressElsewhere, report);
        }
        if self.known == Some(link.index) {
            return;
        }
        self.known = Some(link.index);
        let is_same = self.made.link == Some(link.index);
        if !is_same && self.made.link.take().is_some() {
            // The link that it was said of is gone, and its addresses with it.
            self.made.addresses.clear();
        }
        let own = here.iter().filter(|(index, _)| *index == link.index);
        let mut others = own.filter(|(_, address)| {
            !is_automatic(address) && !self.wish.addresses.contains(address)
        });
        let is_kind = link.kind.as_deref() == Some(self.kind);
        let is_marked = is_same || link.alias.as_deref() == Some(ALIAS);
        // What node-cache left behind, or a nodens whose directory is gone: node-cache, too, takes
        // a dummy of the name that it was given for its own.
        let is_left_behind = is_kind && others.next().is_none();
        if is_kind && (is_marked || is_left_behind) {
            self.made.link = Some(link.index);
            // What cannot be set is not there for people to see.
            if !is_marked && let Ok(links) = self.links() {
                let _ = links.set_alias(link.index, ALIAS);
            }
        } else {
            self.made.link = None;
            if is_kind {
                self.meet(Trouble::LinkOfOthers, report);
            }
        }
    }

    fn add_addresses(
        &mut self,
        link: &Link,
        here: &[(u32, IpAddr)],
        report: &mut Report,
    ) -> Result<(), Trouble> {
        let mut result = Ok(());
        for address in self.wish.addresses.clone() {
            if here.contains(&(link.index, address)) {
                continue;
            }
            match self.links()?.add_address(link.index, address) {
                Ok(()) => {
                    if !self.made.addresses.contains(&address) {
                        self.made.addresses.push(address);
                        self.made.addresses.truncate(MOST_ADDRESSES);
                    }
                    let back = if self.was_whole { "Added back" } else { "Added" };
                    let name = &self.wish.name;
                    report.say(Level::Info, format!("{back} address {address} - {name}"));
                    report.repaired += u64::from(self.was_whole);
                }
                Err(refusal) if refusal.number() == Some(libc::EEXIST) => {}
                Err(refusal) => {
                    let (name, why) = (&self.wish.name, text(&refusal));
                    report.say(
                        Level::Error,
                        format!("Error checking dummy device {name} - add {address}: {why}"),
                    );
                    result = Err(trouble(&refusal));
                }
            }
        }
        result
    }

    /// Takes away what was made and nobody claims any more. Give up this process's claims before.
    pub fn remove(&mut self) -> Report {
        let mut report = Report::default();
        let removal = self.made_here().and_then(|removal| {
            let removal = self.unclaimed(removal, &mut report);
            self.carry_out(&removal, &mut report)
        });
        self.end(removal, report)
    }

    /// What [`Interface::remove_left_behind`] would take away.
    pub fn left_behind(&mut self) -> Result<Left, Refusal> {
        let removal = self.of_any_age()?;
        let Some(link) = removal.link else {
            let addresses = removal.addresses.iter().map(|(_, address)| *address).collect();
            return Ok(Left { link: false, addresses });
        };
        let here = self.open_links()?.addresses()?;
        let own = here.iter().filter(|(index, _)| *index == link).map(|(_, address)| *address);
        let addresses = own.filter(|address| !is_automatic(address)).collect();
        Ok(Left { link: true, addresses })
    }

    /// Takes away what nodens or node-cache, of any age, left behind, in spite of claims: a link of
    /// the kind and name that they make, or the addresses that the runtime directory tells of.
    pub fn remove_left_behind(&mut self) -> Report {
        let mut report = Report::default();
        let removal = self.of_any_age().and_then(|removal| self.carry_out(&removal, &mut report));
        self.end(removal, report)
    }

    /// What this process, or one before it, made.
    fn made_here(&mut self) -> Result<Removal, Refusal> {
        let (name, mut made) = (self.wish.name.clone(), self.made.clone());
        if made == Made::default() || !is_name(&name) {
            return Ok(Removal::default());
        }
        let links = self.open_links()?;
        let Some(link) = links.by_name(&name)? else {
            self.made = Made::default();
            return Ok(Removal::default());
        };
        let here = links.addresses()?;
        made.addresses.retain(|address| here.contains(&(link.index, *address)));
        Ok(Removal {
            link: made.link.filter(|made| *made == link.index),
            addresses: made.addresses.iter().map(|address| (link.index, *address)).collect(),
        })
    }

    fn of_any_age(&mut self) -> Result<Removal, Refusal> {
        let mut removal = self.made_here()?;
        let name = self.wish.name.clone();
        if removal.link.is_none()
            && is_name(&name)
            && let Some(link) = self.open_links()?.by_name(&name)?
            && link.kind.as_deref() == Some(self.kind)
        {
            removal.link = Some(link.index);
        }
        Ok(removal)
    }

    /// Leaves out what another nodens serves with.
    fn unclaimed(&self, mut removal: Removal, report: &mut Report) -> Removal {
        let name = &self.wish.name;
        let is_something = removal.link.is_some() || !removal.addresses.is_empty();
        if is_something && is_claimed(&Claim::Link(name.clone())) {
            removal.link = None;
            let line = format!("Another nodens serves with the interface {name}: it stays");
            report.say(Level::Info, line);
        }
        removal.addresses.retain(|(_, address)| !is_claimed(&Claim::Address(*address)));
        removal
    }

    fn carry_out(&mut self, removal: &Removal, report: &mut Report) -> Result<(), Refusal> {
        let name = self.wish.name.clone();
        if let Some(link) = removal.link {
            self.open_links()?.remove(link)?;
            report.say(Level::Info, format!("Removed interface - {name}"));
            self.made = Made::default();
            return Ok(());
        }
        let mut result = Ok(());
        for (link, address) in &removal.addresses {
            match self.open_links()?.remove_address(*link, *address) {
                Err(refusal) if refusal.number() != Some(libc::EADDRNOTAVAIL) => {
                    result = Err(refusal);
                    continue;
                }
                _ => report.say(Level::Info, format!("Removed address {address} - {name}")),
            }
            self.made.addresses.retain(|made| made != address);
        }
        result
    }

    fn end(&mut self, result: Result<(), Refusal>, mut report: Report) -> Report {
        if let Err(refusal) = result {
            let (name, why) = (&self.wish.name, text(&refusal));
            report.check_errors += 1;
            report.say(Level::Error, format!("Failed to remove interface {name}: {why}"));
            self.meet(trouble(&refusal), &mut report);
        }
        self.remember(&mut report);
        report
    }

    fn open_links(&mut self) -> Result<&mut Links, Refusal> {
        match &mut self.links {
            Some(links) => Ok(links),
            none => Ok(none.insert(Links::open()?)),
        }
    }

    fn links(&mut self) -> Result<&mut Links, Trouble> {
        self.open_links().map_err(|_| Trouble::Kernel)
    }

    /// Counts a trouble, and says what to do about it the first time.
    fn meet(&mut self, trouble: Trouble, report: &mut Report) {
        report.troubles.push(trouble);
        if self.said.contains(&trouble) {
            return;
        }
        self.said.push(trouble);
        let name = &self.wish.name;
        let line = match trouble {
            Trouble::NoDriver => {
                "This kernel has no dummy interfaces: load the module `dummy`, or name \
                                  an interface that is there, such as the loopback one: \
                                  -interfacename lo"
                    .to_owned()
            }
            Trouble::NoPermission => format!(
                "The capability NET_ADMIN is missing: give it to nodens, or make the interface \
                 {name} yourself and give -setupinterface=false"
            ),
            Trouble::AddressElsewhere => format!(
                "A local address is on another interface than {name}, too: queries come to nodens \
                 all the same"
            ),
            Trouble::LinkOfOthers => {
                format!("The interface {name} has addresses of others: it stays at the end")
            }
            Trouble::LinkDown => format!(
                "The interface {name} is down and was not made by nodens: its IPv6 addresses do not \
                 answer until it is set up"
            ),
            // Told where they are met.
            Trouble::RuntimeDirectory
            | Trouble::NoNfTables
            | Trouble::TableOfOthers
            | Trouble::PolicyDrops
            | Trouble::Kernel => return,
        };
        report.say(Level::Warning, line);
    }

    /// Writes down what was made, when it became another.
    fn remember(&mut self, report: &mut Report) {
        if self.written.as_ref() == Some(&self.made) || !is_name(&self.wish.name) {
            return;
        }
        match self.mark.write(&self.made) {
            Ok(()) => self.written = Some(self.made.clone()),
            Err(error) => {
                self.written = None;
                let is_new = !self.said.contains(&Trouble::RuntimeDirectory);
                self.meet(Trouble::RuntimeDirectory, report);
                if is_new {
                    let why = system_error_text(&error);
                    report.say(
                        Level::Warning,
                        format!(
                            "Cannot remember in the runtime directory what was made: {why}; after a \
                             crash addresses may stay"
                        ),
                    );
                }
            }
        }
    }
}

/// Whether the kernel takes it for a link's name.
fn is_name(name: &str) -> bool {
    let is_fine = |letter: char| !letter.is_whitespace() && letter != '/' && letter != ':';
    !name.is_empty()
        && name.len() <= LONGEST_NAME
        && name.chars().all(is_fine)
        && !matches!(name, "." | "..")
}

/// Whether the kernel gives such an address to links by itself.
fn is_automatic(address: &IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

fn trouble(refusal: &Refusal) -> Trouble {
    match refusal.number() {
        Some(libc::EPERM | libc::EACCES) => Trouble::NoPermission,
        _ => Trouble::Kernel,
    }
}

/// The error in Go's words.
fn text(refusal: &Refusal) -> String {
    system_error_text(&refusal.error)
}

#[cfg(test)]
mod tests;
