//! The kernel's control messages beside a datagram: which address it was sent to or goes out from, and
//! into what a train is cut up (cmsg(3), ip(7), ipv6(7), udp(7)).
//!
//! Owns their layout, written and read. Makes no system call.
#![allow(unsafe_code)]

use std::mem::size_of;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Octets of control messages per datagram: one `in6_pktinfo` with its header is 40, the length of a
/// train's messages 24, either way.
pub(super) const CONTROL: usize = 64;

/// Room for control messages, aligned as the kernel lays them out.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub(super) struct Control([u8; CONTROL]);

impl Control {
    /// Room without a message.
    pub(super) const NONE: Control = Control([0; CONTROL]);
}

/// Adds a control message behind those that the header has.
pub(super) fn put_control<T>(
    header: &mut libc::msghdr,
    room: &mut Control,
    level: libc::c_int,
    kind: libc::c_int,
    content: T,
) {
    let size = size_of::<T>() as libc::c_uint;
    // SAFETY: pure arithmetic.
    let (space, length) = unsafe { (libc::CMSG_SPACE(size), libc::CMSG_LEN(size)) };
    let used: usize = header.msg_controllen as _;
    let Some(free) = room.0.get_mut(used..used + space as usize) else {
        debug_assert!(false, "there is room for every control message");
        return;
    };
    free.fill(0);
    let at = free.as_mut_ptr();
    // SAFETY: `at` points to `space` octets of the room, which hold a header and a content of this
    // size. It is aligned for a header: the room is, and CMSG_SPACE is a multiple of that.
    unsafe {
        let first = at.cast::<libc::cmsghdr>();
        (*first).cmsg_level = level;
        (*first).cmsg_type = kind;
        (*first).cmsg_len = length as _;
        libc::CMSG_DATA(first).cast::<T>().write_unaligned(content);
    }
    header.msg_control = room.0.as_mut_ptr().cast();
    header.msg_controllen = (used + space as usize) as _;
}

/// The octets of each message but the last, if it is a train.
///
/// # Safety
///
/// As for [`control`].
pub(super) unsafe fn segment(header: &libc::msghdr) -> Option<usize> {
    let read = |level, kind, content: *const u8| match (level, kind) {
        (libc::SOL_UDP, libc::UDP_GRO) => {
            // SAFETY: the content of this kind is an int, which may stand unaligned.
            Some(unsafe { content.cast::<libc::c_int>().read_unaligned() })
        }
        _ => None,
    };
    // SAFETY: the caller's word is the same.
    let octets = unsafe { control(header, read) };
    octets.and_then(|octets| usize::try_from(octets).ok()).filter(|octets| *octets > 0)
}

/// The address that a datagram was sent to, if the socket was asked to tell.
///
/// # Safety
///
/// As for [`control`].
pub(super) unsafe fn destination(header: &libc::msghdr) -> Option<IpAddr> {
    // SAFETY: the content of each kind is read by its own type and size; it may stand unaligned.
    let read = |level, kind, content: *const u8| unsafe {
        match (level, kind) {
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                let info = content.cast::<libc::in_pktinfo>().read_unaligned();
                let octets = info.ipi_spec_dst.s_addr.to_ne_bytes();
                Some(IpAddr::V4(Ipv4Addr::from(octets)))
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                let info = content.cast::<libc::in6_pktinfo>().read_unaligned();
                Some(IpAddr::V6(Ipv6Addr::from(info.ipi6_addr.s6_addr)))
            }
            _ => None,
        }
    };
    // SAFETY: the caller's word is the same.
    unsafe { control(header, read) }
}

/// What `read` makes of the first control message that it can read, by level, kind and content.
///
/// # Safety
///
/// The kernel has filled the header, and its [`Control`] is where it was.
unsafe fn control<T>(
    header: &libc::msghdr,
    read: impl Fn(libc::c_int, libc::c_int, *const u8) -> Option<T>,
) -> Option<T> {
    // SAFETY: msg_control and msg_controllen are as the kernel left them: a well-formed chain inside a
    // Control, which is alive and aligned. The macros walk within that length.
    unsafe {
        let mut at = libc::CMSG_FIRSTHDR(header);
        while !at.is_null() {
            let found = read((*at).cmsg_level, (*at).cmsg_type, libc::CMSG_DATA(at));
            if found.is_some() {
                return found;
            }
            at = libc::CMSG_NXTHDR(header, at);
        }
    }
    None
}
