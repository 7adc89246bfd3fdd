//! An upstream that answers every question alike, and counts them.
#![allow(dead_code)] // Not every test file uses all of it.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// What every name resolves to.
pub(crate) const ANSWER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 80);

/// An upstream that answers every question with [`ANSWER`] for an hour, until it is ended.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    ends: Arc<AtomicBool>,
    questions: Arc<AtomicUsize>,
    thread: JoinHandle<()>,
}

impl Upstream {
    /// At a port that is this test's alone: where it was, nobody answers once it has ended.
    pub(crate) fn start(port: u16) -> Upstream {
        let socket = UdpSocket::bind(("127.0.0.1", port)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let (address, ends) = (socket.local_addr().unwrap(), Arc::new(AtomicBool::new(false)));
        let questions = Arc::new(AtomicUsize::new(0));
        let (is_over, count) = (ends.clone(), questions.clone());
        let thread = thread::spawn(move || {
            let mut query = [0; 512];
            while !is_over.load(Ordering::Acquire) {
                let Ok((length, client)) = socket.recv_from(&mut query) else { continue };
                count.fetch_add(1, Ordering::Relaxed);
                let Some(name) = query[12..length].iter().position(|octet| *octet == 0) else {
                    continue;
                };
                let mut reply = query[..12 + name + 5].to_vec();
                reply[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
                reply.extend(b"\xc0\x0c\0\x01\0\x01\0\0\x0e\x10\0\x04");
                reply.extend(ANSWER.octets());
                let _ = socket.send_to(&reply, client);
            }
        });
        Upstream { address, ends, questions, thread }
    }

    pub(crate) fn end(self) {
        self.ends.store(true, Ordering::Release);
        self.thread.join().unwrap();
    }

    /// How many questions came.
    pub(crate) fn questions(&self) -> usize {
        self.questions.load(Ordering::Relaxed)
    }
}
