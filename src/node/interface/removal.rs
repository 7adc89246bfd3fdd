//! The end of an interface: what was made here goes, or what was left behind, and none of it while
//! another nodens serves with it.

use super::mark::Made;
use super::{Interface, Report, Trouble, is_automatic, is_name, text};
use crate::node::claims::{Claim, is_claimed};
use crate::plugin::Level;
use crate::sys::netlink::Refusal;
use std::net::IpAddr;

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

impl Interface {
    /// Takes away what was made and nobody claims any more, but for the addresses in `served`, which somebody
    /// serves on who claims nothing, and their link. Give up this process's claims before.
    pub fn remove(&mut self, served: &[IpAddr]) -> Report {
        let mut report = Report::default();
        let removal = self.made_here().and_then(|removal| {
            let removal = self.unclaimed(removal, served, &mut report);
            self.carry_out(&removal, &mut report)
        });
        self.end(removal, report)
    }

    /// What [`Interface::remove_left_behind`] would take away.
    ///
    /// # Errors
    ///
    /// Why the kernel does not show its links and addresses.
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

    /// Leaves out what another nodens, or somebody on these addresses, serves with.
    fn unclaimed(&self, mut removal: Removal, served: &[IpAddr], report: &mut Report) -> Removal {
        let name = &self.wish.name;
        let is_something = removal.link.is_some() || !removal.addresses.is_empty();
        if is_something && is_claimed(&Claim::Link(name.clone())) {
            removal.link = None;
            let line = format!("Another nodens serves with the interface {name}: it stays");
            report.say(Level::Info, line);
        } else if is_something && let Some(address) = served.first() {
            removal.link = None;
            let line = format!("Somebody else serves on {address}: the interface {name} stays");
            report.say(Level::Info, line);
        }
        removal.addresses.retain(|(_, address)| {
            !is_claimed(&Claim::Address(*address)) && !served.contains(address)
        });
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
            self.meet(Trouble::of(&refusal), &mut report);
        }
        self.remember(&mut report);
        report
    }
}
