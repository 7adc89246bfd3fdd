//! Netlink with the kernel: links, and refusals.

use super::*;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, sendto, socket,
};

/// `struct ifinfomsg` of a link by its number.
fn link(number: i32) -> [u8; 16] {
    let mut fixed = [0; 16];
    fixed[4..8].copy_from_slice(&number.to_ne_bytes());
    fixed
}

fn name_of(message: &Message) -> Option<String> {
    let mut all = message.attributes(16);
    let (_, name) = all.find(|(kind, _)| *kind == libc::IFLA_IFNAME)?;
    Some(String::from_utf8_lossy(name).trim_end_matches('\0').to_owned())
}

#[test]
fn the_loopback_link_is_among_all_links() {
    let mut netlink = Netlink::open(Subsystem::Route).unwrap();
    let links = netlink.dump(&Request::new(libc::RTM_GETLINK, 0).fixed(&link(0))).unwrap();
    assert!(links.iter().any(|link| name_of(link).as_deref() == Some("lo")), "{links:?}");
}

#[test]
fn one_link_is_asked_for_by_its_number() {
    let mut netlink = Netlink::open(Subsystem::Route).unwrap();
    for _ in 0..3 {
        let request = Request::new(libc::RTM_GETLINK, 0).fixed(&link(1));
        let found = netlink.get(&request).unwrap().unwrap();
        assert_eq!(name_of(&found).as_deref(), Some("lo"));
    }
}

#[test]
fn what_the_kernel_refuses_comes_with_its_number() {
    let mut netlink = Netlink::open(Subsystem::Route).unwrap();
    let request = Request::new(libc::RTM_GETLINK, 0).fixed(&link(1 << 30));
    assert_eq!(netlink.get(&request).unwrap_err().number(), Some(libc::ENODEV));
    // Refused with or without the privilege to do it.
    let request = Request::new(libc::RTM_DELLINK, 0).fixed(&link(1 << 30));
    let number = netlink.ask(request).unwrap_err().number();
    assert!([Some(libc::ENODEV), Some(libc::EPERM)].contains(&number), "{number:?}");
    // The socket is as good as before.
    assert!(netlink.get(&Request::new(libc::RTM_GETLINK, 0).fixed(&link(1))).is_ok());
}

#[test]
fn a_dump_that_the_kernel_breaks_off_is_an_error() {
    /// Has the kernel look at all of a request (NETLINK_GET_STRICT_CHK).
    const STRICT: libc::c_int = 12;
    let mut netlink = Netlink::open(Subsystem::Route).unwrap();
    netlink.set(libc::SOL_NETLINK, STRICT, &1_i32).unwrap();
    // The addresses of a link that is not there (`struct ifaddrmsg`).
    let mut addresses = [0; 8];
    addresses[0] = libc::AF_INET as u8;
    addresses[4..].copy_from_slice(&(1_i32 << 30).to_ne_bytes());
    let refusal = netlink.dump(&Request::new(libc::RTM_GETADDR, 0).fixed(&addresses)).unwrap_err();
    assert_eq!(refusal.number(), Some(libc::ENODEV));
}

#[test]
fn what_another_process_sends_is_not_read() {
    let mut netlink = Netlink::open(Subsystem::Route).unwrap();
    netlink.set_nonblocking().unwrap();
    let route = SockProtocol::NetlinkRoute;
    let other = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, route);
    let forged = Request::new(libc::RTM_NEWLINK, 0).fixed(&link(1)).finish(1, 0);
    let address = NetlinkAddr::new(netlink.port(), 0);
    match sendto(other.unwrap().as_raw_fd(), &forged, &address, MsgFlags::empty()) {
        // Who is not root may not.
        Err(Errno::EPERM) => {}
        sent => assert_eq!(sent, Ok(forged.len())),
    }
    assert_eq!(netlink.receive().unwrap_err().kind(), io::ErrorKind::WouldBlock);
}
