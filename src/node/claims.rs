//! Who serves on this node: which link, addresses and rules a living nodens needs.
//!
//! A claim is a Unix socket with an abstract name. Such names belong to the network namespace, as
//! links and rules do: every nodens of a node sees them, whatever container it runs in, and the
//! kernel drops them at once when their process dies, however it dies. So what is torn down is never
//! a successor's, and there is no stale mark to judge.

use crate::sys::unix;
use socket2::{Domain, SockAddr, Socket, Type};
use std::fs::File;
use std::io::{self, Read};
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

/// The most octets of the kernel's list of sockets that are read.
const LONGEST_LIST: u64 = 8 << 20;

/// What stands before all names.
const PREFIX: &str = "nodens";

/// Something on the node that a process needs while it serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// A link, by its name.
    Link(String),
    /// An address on a link.
    Address(IpAddr),
    /// The firewall rules of an address and port.
    Rules(IpAddr, u16),
}

impl Claim {
    fn name(&self) -> String {
        match self {
            Claim::Link(name) => format!("{PREFIX}/link/{name}"),
            Claim::Address(address) => format!("{PREFIX}/address/{}", address.to_canonical()),
            Claim::Rules(address, port) => {
                format!("{PREFIX}/rules/{}:{port}", address.to_canonical())
            }
        }
    }
}

/// The claims of this process; dropping them gives them up.
#[derive(Debug, Default)]
pub struct Claims {
    held: Vec<UnixListener>,
}

impl Claims {
    /// Claims something. Others may claim it as well: a claim shuts nobody out, it says that
    /// somebody lives.
    ///
    /// # Errors
    ///
    /// The kernel's: the process has no descriptor left.
    pub fn take(&mut self, claim: &Claim) -> io::Result<()> {
        let name = format!("{}/{:016x}", claim.name(), rand::random::<u64>());
        let address = SocketAddr::from_abstract_name(name.as_bytes())?;
        self.held.push(UnixListener::bind_addr(&address)?);
        Ok(())
    }

    /// Gives all claims up.
    pub fn release(&mut self) {
        self.held.clear();
    }
}

/// Whether a living process of this user claims something. A process that wants to know it of
/// others gives its own claims up first.
pub fn is_claimed(claim: &Claim) -> bool {
    let wanted = format!("{}/", claim.name());
    names().iter().any(|name| name.starts_with(&wanted) && is_ours(name))
}

/// Whether a living process of any user claims something: for what asks before it takes away.
pub(super) fn is_claimed_by_anybody(claim: &Claim) -> bool {
    let wanted = format!("{}/", claim.name());
    names().iter().any(|name| name.starts_with(&wanted))
}

/// Whether a living process of any user claims firewall rules, of whatever address.
pub(super) fn are_rules_claimed() -> bool {
    let wanted = format!("{PREFIX}/rules/");
    names().iter().any(|name| name.starts_with(&wanted))
}

/// The abstract names that begin as ours do.
fn names() -> Vec<String> {
    let mut list = String::new();
    // Without the list nobody is seen: then nodens does as node-cache, which knows of nobody.
    let read = File::open("/proc/self/net/unix")
        .and_then(|file| file.take(LONGEST_LIST).read_to_string(&mut list));
    if read.is_err() {
        return Vec::new();
    }
    let start = format!("@{PREFIX}/");
    let places = list.lines().filter_map(|line| line.split_whitespace().last());
    places.filter(|place| place.starts_with(&start)).map(|place| place[1..].to_owned()).collect()
}

/// Whether the name's holder runs as our user: anybody on the node can take a name. Nothing is
/// sent, and the holder is not waited for.
fn is_ours(name: &str) -> bool {
    let connected = Socket::new(Domain::UNIX, Type::STREAM, None).and_then(|socket| {
        socket.set_nonblocking(true)?;
        match socket.connect(&SockAddr::unix(format!("\0{name}"))?) {
            Ok(()) => Ok(Some(socket)),
            // As many looked as can wait: it lives.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    });
    match connected {
        Ok(Some(socket)) => {
            unix::peer(socket.as_fd()).is_ok_and(|holder| holder.user == unix::own_user())
        }
        Ok(None) => true,
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    fn own(name: &str) -> Claim {
        Claim::Link(format!("{name}-{}", std::process::id()))
    }

    #[test]
    fn a_claim_is_seen_until_it_is_given_up() {
        let claim = own("seen");
        assert!(!is_claimed(&claim) && !is_claimed_by_anybody(&claim));
        let mut claims = Claims::default();
        claims.take(&claim).unwrap();
        assert!(is_claimed(&claim));
        // As often as one looks, and beside another's.
        let mut other = Claims::default();
        other.take(&claim).unwrap();
        for _ in 0..300 {
            assert!(is_claimed(&claim) && is_claimed_by_anybody(&claim));
        }
        claims.release();
        assert!(is_claimed(&claim));
        drop(other);
        // A program that another test starts has the claims, too, until it runs.
        let begun = Instant::now();
        while is_claimed(&claim) {
            assert!(begun.elapsed() < Duration::from_secs(60), "it stays claimed");
        }
    }

    #[test]
    fn a_claim_at_which_as_many_have_looked_as_can_wait_lives() {
        let claim = own("crowded");
        let holder = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        holder.bind(&SockAddr::unix(format!("\0{}/1", claim.name())).unwrap()).unwrap();
        holder.listen(1).unwrap();
        for looks in 0..10 {
            assert!(is_claimed(&claim), "{looks}");
        }
    }

    #[test]
    fn names_that_begin_alike_are_others() {
        let claim = own("alike");
        let Claim::Link(name) = &claim else { return };
        let mut claims = Claims::default();
        claims.take(&Claim::Link(format!("{name}x"))).unwrap();
        assert!(!is_claimed(&claim) && !is_claimed_by_anybody(&claim));
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        claims.take(&Claim::Rules(address("192.0.2.1"), 5353)).unwrap();
        assert!(!is_claimed(&Claim::Rules(address("192.0.2.1"), 53)));
        assert!(is_claimed(&Claim::Rules(address("::ffff:192.0.2.1"), 5353)));
        assert!(!is_claimed(&Claim::Address(address("192.0.2.1"))));
    }
}
