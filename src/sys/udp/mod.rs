//! Batched UDP: many datagrams with one system call, each with the address it was sent to.
//!
//! What goes to one client leaves as a train where the kernel can cut it up (UDP_SEGMENT, udp(7); `outbox`);
//! what came as one is taken in whole (`inbox`). Never waits: both calls are for a socket that is ready,
//! and return at once.
#![allow(unsafe_code)]

mod control;
mod inbox;
mod options;
mod outbox;
mod route;
mod trains;

pub use inbox::{Destinations, Inbox};
pub use options::{keep_datagrams, part_trains, take_trains, tell_destination};
pub use outbox::{Outbox, Sent};
pub use route::Route;

/// One received datagram, alone or out of a train.
#[derive(Debug)]
pub struct Datagram<'i> {
    /// Its content, cut at the inbox's octets.
    pub bytes: &'i [u8],
    /// Whence and to where.
    pub route: Route,
}

fn no_iovec() -> libc::iovec {
    libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }
}

fn no_header() -> libc::mmsghdr {
    // SAFETY: integers and pointers, for which zero and null are values.
    unsafe { std::mem::zeroed() }
}
