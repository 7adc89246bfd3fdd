//! The interface with the local addresses: made, kept whole, taken away.
//!
//! Owns the decision what is ours. A link that is not there is made, as node-cache does it; on one
//! that is there, of any kind, only missing addresses are added. At the end only what was made here,
//! or by a nodens or node-cache before, goes: and none of it while another nodens serves with it.

mod links;
mod mark;
mod removal;
mod trouble;

pub use self::links::{Watch, read_news};
pub use self::removal::Left;
pub use self::trouble::Trouble;

use self::links::{Link, Links};
use self::mark::{MOST_ADDRESSES, Made, Mark};
use super::PROXY_LINK;
use super::claims::Claim;
use crate::corefile::system_error_text;
use crate::plugin::Level;
use crate::sys::netlink::Refusal;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;

/// What stands on links that we made, for people and for a later start.
const ALIAS: &str = "nodens";

/// The longest name of a link (`IFNAMSIZ` without its NUL).
const LONGEST_NAME: usize = 15;

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

/// The interface. Touches nothing before [`Interface::ensure`].
#[derive(Debug)]
pub struct Interface {
    wish: Wish,
    /// `dummy`; tests use what their kernel has, and no link has an empty one.
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

    /// Those that `directory` remembers something of, made in this network namespace: only what it remembers
    /// counts as left behind by them, whatever their kind.
    pub fn remembered(directory: &Path) -> Vec<Interface> {
        let names = mark::names(directory).into_iter();
        let of_name =
            |name| Interface::of_kind("", Wish { name, addresses: Vec::new() }, directory);
        names.map(of_name).filter(|one| one.made != Made::default()).collect()
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.wish.name
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
            Trouble::of(refusal)
        };
        if name.is_empty() {
            // The kernel would choose one.
            return Err(self.cannot_add("LinkAttrs.Name cannot be empty", report));
        }
        let found = match self.links()?.by_name(&name) {
            // What is too long for a name is told where the link is made, as all that is none.
            Err(refusal) if refusal.number() == Some(libc::ERANGE) => None,
            found => found.map_err(|why| checked(report, &why))?,
        };
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
                let kernels = self.cannot_add(&text(&refusal), report);
                return Err(match refusal.number() {
                    Some(libc::EOPNOTSUPP) => Trouble::NoDriver,
                    Some(libc::EPERM | libc::EACCES) => Trouble::NoPermission,
                    _ => kernels,
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

    /// Says and counts that the link cannot be made.
    fn cannot_add(&self, why: &str, report: &mut Report) -> Trouble {
        let name = &self.wish.name;
        report.add_errors += 1;
        report.say(Level::Error, format!("Failed to add non-existent interface {name}: {why}"));
        report.say(Level::Error, format!("Error checking dummy device {name} - {why}"));
        Trouble::Kernel
    }

    /// Decides whose a link is that was not looked at before.
    fn know(&mut self, link: &Link, here: &[(u32, IpAddr)], report: &mut Report) {
        self.look_elsewhere(link, here, report);
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

    /// Tells of local addresses that other links have, too.
    fn look_elsewhere(&mut self, link: &Link, here: &[(u32, IpAddr)], report: &mut Report) {
        let is_double = |(index, address): &&(u32, IpAddr)| {
            *index != link.index && self.wish.addresses.contains(address)
        };
        let doubles: Vec<(u32, IpAddr)> = here.iter().filter(is_double).copied().collect();
        if doubles.is_empty() {
            return;
        }
        let proxys = self.links().ok().and_then(|links| links.by_name(PROXY_LINK).ok().flatten());
        let is_proxys = |index: u32| proxys.as_ref().is_some_and(|it| it.index == index);
        let (of_ipvs, others): (Vec<_>, Vec<_>) =
            doubles.into_iter().partition(|(index, _)| is_proxys(*index));
        if !of_ipvs.is_empty() {
            let line = format!(
                "On the interface {PROXY_LINK}, too: {}; kube-proxy uses IPVS, which takes their queries: \
                 leave them out of -localip, and give pods another local address, or use -service-rewrite",
                list(&of_ipvs)
            );
            self.meet_and_say(Trouble::AddressOfIpvs, Some(line), report);
        }
        if !others.is_empty() {
            let line = format!(
                "On another interface than {}, too: {}; queries come to nodens all the same",
                self.wish.name,
                list(&others)
            );
            self.meet_and_say(Trouble::AddressElsewhere, Some(line), report);
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
                    result = Err(Trouble::of(&refusal));
                }
            }
        }
        result
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
        self.meet_and_say(trouble, trouble.advice(&self.wish.name), report);
    }

    /// The same, with these words.
    fn meet_and_say(&mut self, trouble: Trouble, line: Option<String>, report: &mut Report) {
        report.troubles.push(trouble);
        if self.said.contains(&trouble) {
            return;
        }
        self.said.push(trouble);
        if let Some(line) = line {
            report.say(Level::Warning, line);
        }
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

/// The addresses, with commas, each once.
fn list(entries: &[(u32, IpAddr)]) -> String {
    let addresses: BTreeSet<IpAddr> = entries.iter().map(|(_, address)| *address).collect();
    let texts: Vec<String> = addresses.iter().map(IpAddr::to_string).collect();
    texts.join(", ")
}

/// Whether the kernel takes it for a link's name (`dev_valid_name`).
fn is_name(name: &str) -> bool {
    // It goes by octets, for which 0xA0 is white space.
    let is_fine = |octet: u8| !matches!(octet, b'\t'..=b'\r' | b' ' | 0xa0 | b'/' | b':');
    !name.is_empty()
        && name.len() <= LONGEST_NAME
        && name.bytes().all(is_fine)
        && !matches!(name, "." | "..")
}

/// Whether the kernel gives such an address to links by itself.
fn is_automatic(address: &IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

/// The error in Go's words.
fn text(refusal: &Refusal) -> String {
    system_error_text(&refusal.error)
}

#[cfg(test)]
mod tests;
