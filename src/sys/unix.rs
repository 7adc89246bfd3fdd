//! Unix sockets: descriptors passed to another process, and who that process is.
//!
//! Owns the layout of the control messages. Messages keep their boundaries (SOCK_SEQPACKET): one
//! call sends or receives one message with all of its descriptors, or fails.
#![allow(unsafe_code)]

use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use nix::unistd::geteuid;
use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// The most descriptors of one message.
pub const DESCRIPTORS_MOST: usize = 64;

/// Octets of control message for that many: a header of 16 and 4 for each, and room to spare.
const CONTROL: usize = 320;

#[repr(C, align(8))]
struct Control([u8; CONTROL]);

/// One message that was received.
#[derive(Debug)]
pub struct Received {
    /// How many octets of the buffer it took; 0 when the other side is gone.
    pub length: usize,
    /// What came with it, closed on exec.
    pub descriptors: Vec<OwnedFd>,
}

/// Sends one message with its descriptors, which stay ours too. `InvalidInput` when there are more
/// than [`DESCRIPTORS_MOST`].
///
/// # Errors
///
/// `InvalidInput` when there are more than [`DESCRIPTORS_MOST`]; else the kernel's.
pub fn send(
    socket: BorrowedFd<'_>,
    octets: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    if descriptors.len() > DESCRIPTORS_MOST {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut control = Control([0; CONTROL]);
    let mut iovec =
        libc::iovec { iov_base: octets.as_ptr().cast_mut().cast(), iov_len: octets.len() };
    // SAFETY: msghdr is plain data for which all zeroes are valid.
    let mut header: libc::msghdr = unsafe { zeroed() };
    header.msg_iov = &raw mut iovec;
    header.msg_iovlen = 1;
    if !descriptors.is_empty() {
        let octets = (descriptors.len() * size_of::<RawFd>()) as libc::c_uint;
        header.msg_control = control.0.as_mut_ptr().cast();
        // SAFETY: these two only compute sizes from their arguments.
        let (space, length) = unsafe { (libc::CMSG_SPACE(octets), libc::CMSG_LEN(octets)) };
        header.msg_controllen = space as _;
        // SAFETY: `control` is aligned for a cmsghdr and, by the bound above, larger than `space`,
        // so the first header and the data behind it lie inside it.
        unsafe {
            let first = libc::CMSG_FIRSTHDR(&raw const header);
            (*first).cmsg_level = libc::SOL_SOCKET;
            (*first).cmsg_type = libc::SCM_RIGHTS;
            (*first).cmsg_len = length as _;
            let mut place = libc::CMSG_DATA(first).cast::<RawFd>();
            for descriptor in descriptors {
                place.write_unaligned(descriptor.as_raw_fd());
                place = place.add(1);
            }
        }
    }
    loop {
        // SAFETY: the header points at `iovec` and `control`, which live until the call is over;
        // the kernel only reads them.
        let sent =
            unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const header, libc::MSG_NOSIGNAL) };
        match usize::try_from(sent) {
            Ok(sent) if sent == octets.len() => return Ok(()),
            Ok(_) => return Err(io::ErrorKind::WriteZero.into()),
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
}

/// Receives one message. `InvalidData` when it or its descriptors did not fit: nothing of it is
/// kept then.
///
/// # Errors
///
/// `InvalidData` when the message or its descriptors did not fit; else the kernel's.
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Received> {
    let mut control = Control([0; CONTROL]);
    let mut iovec = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: msghdr is plain data for which all zeroes are valid.
    let mut header: libc::msghdr = unsafe { zeroed() };
    header.msg_iov = &raw mut iovec;
    header.msg_iovlen = 1;
    header.msg_control = control.0.as_mut_ptr().cast();
    header.msg_controllen = CONTROL as _;
    let length = loop {
        // SAFETY: the header points at `iovec` over `buffer` and at `control`, all alive and
        // writable until the call is over, with their true lengths.
        let received =
            unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, libc::MSG_CMSG_CLOEXEC) };
        match usize::try_from(received) {
            Ok(length) => break length,
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    };
    let mut descriptors = Vec::new();
    // SAFETY: the kernel filled `control` and set its length; CMSG_FIRSTHDR and CMSG_NXTHDR stay
    // within that, and each SCM_RIGHTS message holds as many whole descriptors as its length says.
    // They were made for this process by this call, so nobody else owns them.
    unsafe {
        let mut next = libc::CMSG_FIRSTHDR(&raw const header);
        while let Some(message) = next.as_ref() {
            if message.cmsg_level == libc::SOL_SOCKET && message.cmsg_type == libc::SCM_RIGHTS {
                let octets = message.cmsg_len.saturating_sub(libc::CMSG_LEN(0) as _) as usize;
                let data = libc::CMSG_DATA(next).cast::<RawFd>();
                for place in 0..octets / size_of::<RawFd>() {
                    descriptors.push(OwnedFd::from_raw_fd(data.add(place).read_unaligned()));
                }
            }
            next = libc::CMSG_NXTHDR(&raw const header, next);
        }
    }
    if header.msg_flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0 {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(Received { length, descriptors })
}

/// A process at the other end of a Unix socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// The user that it ran as when it connected or began to listen.
    pub user: u32,
    /// Its number as it is seen here; 0 where it is not seen, as from another container.
    pub process: u32,
}

/// Who is at the other end of a Unix socket.
///
/// # Errors
///
/// The kernel's: for a socket that is none of Unix.
pub fn peer(socket: BorrowedFd<'_>) -> io::Result<Peer> {
    let found = getsockopt(&socket, PeerCredentials)?;
    Ok(Peer { user: found.uid(), process: u32::try_from(found.pid()).unwrap_or(0) })
}

/// The user that this process runs as.
pub fn own_user() -> u32 {
    geteuid().as_raw()
}

#[cfg(test)]
mod tests {
    use super::*;
    use socket2::{Domain, Socket, Type};
    use std::net::UdpSocket;
    use std::os::fd::AsFd;

    fn pair() -> (Socket, Socket) {
        Socket::pair(Domain::UNIX, Type::SEQPACKET, None).unwrap()
    }

    #[test]
    fn descriptors_arrive_with_their_message_and_are_the_same_sockets() {
        let (one, other) = pair();
        let sockets: Vec<UdpSocket> =
            (0..DESCRIPTORS_MOST).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
        let lent: Vec<BorrowedFd<'_>> = sockets.iter().map(AsFd::as_fd).collect();
        send(one.as_fd(), b"first", &lent).unwrap();
        send(one.as_fd(), b"second", &[]).unwrap();
        let mut buffer = [0; 32];
        let Received { length, descriptors } = receive(other.as_fd(), &mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"first");
        assert_eq!(descriptors.len(), DESCRIPTORS_MOST);
        for (socket, descriptor) in sockets.iter().zip(descriptors) {
            let handed = UdpSocket::from(descriptor);
            assert_eq!(handed.local_addr().unwrap(), socket.local_addr().unwrap());
        }
        let Received { length, descriptors } = receive(other.as_fd(), &mut buffer).unwrap();
        assert_eq!((&buffer[..length], descriptors.len()), (&b"second"[..], 0));
        drop(one);
        assert_eq!(receive(other.as_fd(), &mut buffer).unwrap().length, 0);
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let (one, other) = pair();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let lent = vec![socket.as_fd(); DESCRIPTORS_MOST + 1];
        let refused = send(one.as_fd(), b"x", &lent).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
        send(one.as_fd(), b"longer than four", &lent[..1]).unwrap();
        let cut = receive(other.as_fd(), &mut [0; 4]).unwrap_err();
        assert_eq!(cut.kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn the_other_side_s_user_and_process_are_known() {
        let (one, _other) = pair();
        let own = Peer { user: own_user(), process: std::process::id() };
        assert_eq!(peer(one.as_fd()).unwrap(), own);
    }
}
