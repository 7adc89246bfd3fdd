//! Netlink with the kernel: links, and refusals.

use super::*;

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
