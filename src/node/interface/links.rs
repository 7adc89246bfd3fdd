//! Links and their addresses over rtnetlink: one verb a message.
//!
//! Owns the layout of the messages. Decides nothing: what is to be there is [`super::Interface`]'s.

use crate::sys::netlink::{Message, Netlink, Refusal, Request, Subsystem, attributes};
use crate::sys::readiness::readable_netlink;
use std::io;
use std::net::IpAddr;
use tokio::io::unix::AsyncFd;

/// Octets of `struct ifinfomsg`.
const LINK_HEADER: usize = 16;

/// Octets of `struct ifaddrmsg`.
const ADDRESS_HEADER: usize = 8;

/// The attribute of an address with the flags that do not fit its header (`IFA_FLAGS`).
const ADDRESS_FLAGS: u16 = 8;

/// Duplicate address detection is left out: nobody else can have a node-local address
/// (`IFA_F_NODAD`).
const WITHOUT_DETECTION: u32 = 0x02;

/// One link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Link {
    /// The kernel's number; never given twice.
    pub(super) index: u32,
    /// `dummy`, `veth` …; `None` for hardware and the loopback link.
    pub(super) kind: Option<String>,
    /// What stands on it for people (`ip link set … alias …`).
    pub(super) alias: Option<String>,
    /// Whether it is set up.
    pub(super) is_up: bool,
}

/// A socket for requests about links.
#[derive(Debug)]
pub(super) struct Links {
    netlink: Netlink,
}

impl Links {
    /// Opens the socket; needs no privilege.
    pub(super) fn open() -> io::Result<Links> {
        Ok(Links { netlink: Netlink::open(Subsystem::Route)? })
    }

    /// The link of this name; `None` when there is none.
    pub(super) fn by_name(&mut self, name: &str) -> Result<Option<Link>, Refusal> {
        let request = Request::new(libc::RTM_GETLINK, 0)
            .fixed(&link_header(0, 0, 0))
            .text(libc::IFLA_IFNAME, name);
        match self.netlink.get(&request) {
            Ok(message) => Ok(message.as_ref().and_then(link)),
            Err(refusal) if refusal.number() == Some(libc::ENODEV) => Ok(None),
            Err(refusal) => Err(refusal),
        }
    }

    /// Makes a link of a kind. Refused with `EOPNOTSUPP` where the kernel has no driver for it.
    pub(super) fn add(&mut self, name: &str, kind: &str) -> Result<(), Refusal> {
        let flags = (libc::NLM_F_CREATE | libc::NLM_F_EXCL) as u16;
        self.netlink.ask(
            Request::new(libc::RTM_NEWLINK, flags)
                .fixed(&link_header(0, 0, 0))
                .text(libc::IFLA_IFNAME, name)
                .nested(libc::IFLA_LINKINFO, |info| {
                    info.attribute(libc::IFLA_INFO_KIND, kind.as_bytes())
                }),
        )
    }

    /// Sets a link up.
    pub(super) fn set_up(&mut self, index: u32) -> Result<(), Refusal> {
        let up = libc::IFF_UP as u32;
        let request = Request::new(libc::RTM_NEWLINK, 0).fixed(&link_header(index, up, up));
        self.netlink.ask(request)
    }

    /// Puts a text on a link, for people and for a later start.
    pub(super) fn set_alias(&mut self, index: u32, alias: &str) -> Result<(), Refusal> {
        let request = Request::new(libc::RTM_NEWLINK, 0)
            .fixed(&link_header(index, 0, 0))
            .attribute(libc::IFLA_IFALIAS, alias.as_bytes());
        self.netlink.ask(request)
    }

    /// Removes a link.
    pub(super) fn remove(&mut self, index: u32) -> Result<(), Refusal> {
        self.netlink.ask(Request::new(libc::RTM_DELLINK, 0).fixed(&link_header(index, 0, 0)))
    }

    /// The addresses of all links: the link's number and the address.
    pub(super) fn addresses(&mut self) -> Result<Vec<(u32, IpAddr)>, Refusal> {
        let request = Request::new(libc::RTM_GETADDR, 0).fixed(&[0; ADDRESS_HEADER]);
        let messages = self.netlink.dump(&request)?;
        Ok(messages.iter().filter_map(address).collect())
    }

    /// Gives a link an address, alone in its network.
    pub(super) fn add_address(&mut self, index: u32, address: IpAddr) -> Result<(), Refusal> {
        let flags = (libc::NLM_F_CREATE | libc::NLM_F_EXCL) as u16;
        self.netlink.ask(address_request(libc::RTM_NEWADDR, flags, index, address))
    }

    /// Takes an address from a link.
    pub(super) fn remove_address(&mut self, index: u32, address: IpAddr) -> Result<(), Refusal> {
        self.netlink.ask(address_request(libc::RTM_DELADDR, 0, index, address))
    }
}

/// A socket that hears of changes to links and addresses.
#[derive(Debug)]
pub struct Watch {
    netlink: Netlink,
}

impl Watch {
    /// From now on changes are heard of. Never waits.
    ///
    /// # Errors
    ///
    /// The kernel has no such socket, or the process no descriptor left.
    pub fn open() -> io::Result<Watch> {
        let netlink = Netlink::open(Subsystem::Route)?;
        for group in [libc::RTNLGRP_LINK, libc::RTNLGRP_IPV4_IFADDR, libc::RTNLGRP_IPV6_IFADDR] {
            netlink.join(group)?;
        }
        netlink.set_nonblocking()?;
        Ok(Watch { netlink })
    }

    /// Registers with the current runtime; read it with [`read_news`].
    ///
    /// # Errors
    ///
    /// Outside of a runtime, or the kernel's.
    pub fn register(self) -> io::Result<AsyncFd<Netlink>> {
        readable_netlink(self.netlink)
    }

    /// [`read_news`] of a socket that is not registered.
    ///
    /// # Errors
    ///
    /// As for [`read_news`].
    pub fn read(&mut self) -> io::Result<bool> {
        read_news(&mut self.netlink)
    }
}

/// Reads what came. True when something went or changed that may be ours: then look. `WouldBlock`
/// means that nothing came.
///
/// # Errors
///
/// `WouldBlock` when nothing came; else the kernel's.
pub fn read_news(netlink: &mut Netlink) -> io::Result<bool> {
    match netlink.receive() {
        // What is new beside ours is none of our business.
        Ok(messages) => Ok(messages.iter().any(|message| message.kind != libc::RTM_NEWADDR)),
        // News were lost: look.
        Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => Ok(true),
        Err(error) => Err(error),
    }
}

/// `struct ifinfomsg`: the link, its flags, and which of them are meant.
fn link_header(index: u32, flags: u32, meant: u32) -> [u8; LINK_HEADER] {
    let mut header = [0; LINK_HEADER];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..16].copy_from_slice(&meant.to_ne_bytes());
    header
}

fn address_request(kind: u16, flags: u16, index: u32, address: IpAddr) -> Request {
    let (family, length, octets) = match address.to_canonical() {
        IpAddr::V4(v4) => (libc::AF_INET, 32, v4.octets().to_vec()),
        IpAddr::V6(v6) => (libc::AF_INET6, 128, v6.octets().to_vec()),
    };
    let mut header = [0; ADDRESS_HEADER];
    header[0] = family as u8;
    header[1] = length;
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    let request = Request::new(kind, flags)
        .fixed(&header)
        .attribute(libc::IFA_LOCAL, &octets)
        .attribute(libc::IFA_ADDRESS, &octets);
    match family == libc::AF_INET6 && kind == libc::RTM_NEWADDR {
        true => request.attribute(ADDRESS_FLAGS, &WITHOUT_DETECTION.to_ne_bytes()),
        false => request,
    }
}

fn link(message: &Message) -> Option<Link> {
    let header = message.payload.get(..LINK_HEADER)?;
    let number = |at: usize| -> u32 {
        u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
    };
    let mut link = Link {
        index: number(4),
        kind: None,
        alias: None,
        is_up: number(8) & libc::IFF_UP as u32 != 0,
    };
    for (kind, value) in message.attributes(LINK_HEADER) {
        match kind {
            libc::IFLA_IFALIAS => link.alias = Some(text(value)),
            libc::IFLA_LINKINFO => {
                let mut inner = attributes(value);
                let found = inner.find(|(kind, _)| *kind == libc::IFLA_INFO_KIND);
                link.kind = found.map(|(_, value)| text(value));
            }
            _ => {}
        }
    }
    Some(link)
}

fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value).trim_end_matches('\0').to_owned()
}

fn address(message: &Message) -> Option<(u32, IpAddr)> {
    let header = message.payload.get(..ADDRESS_HEADER)?;
    let index = u32::from_ne_bytes([header[4], header[5], header[6], header[7]]);
    let mut found = None;
    for (kind, value) in message.attributes(ADDRESS_HEADER) {
        let parsed = match value.len() {
            4 => <[u8; 4]>::try_from(value).ok().map(IpAddr::from),
            16 => <[u8; 16]>::try_from(value).ok().map(IpAddr::from),
            _ => None,
        };
        match kind {
            // On a link between two, IFA_ADDRESS is the other's and IFA_LOCAL ours.
            libc::IFA_LOCAL => return Some((index, parsed?)),
            libc::IFA_ADDRESS => found = parsed,
            _ => {}
        }
    }
    Some((index, found?))
}
