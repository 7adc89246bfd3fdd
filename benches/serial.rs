//! An upstream as CoreDNS is one over TCP: it answers a connection's queries one after the other, so a
//! slow answer holds up all that were asked behind it. What lies below a label `slow` takes 100 ms,
//! everything else is answered at once.
//!
//!   serial ADDRESS:PORT
//!
//! UDP is answered as well (never slowly), for those who look whether it is there. Each line on its
//! standard input is answered with one on standard output: connections taken so far, open now, the most
//! that were open at once, and queries so far. Ends with the input. Needs nothing but the standard
//! library, so that `rustc -O benches/serial.rs` makes it; benches/serial.py does.

// Its output is for the script that started it; its arguments come from there.
#![allow(clippy::print_stdout, clippy::print_stderr, missing_docs)] // A program of its own, that says what it measured.

use std::io::{BufRead, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How long a slow answer takes.
const SLOW: Duration = Duration::from_millis(100);
/// Threads that each serve one connection at a time; further connections wait to be taken.
const THREADS: usize = 512;
/// Octets of stack of each.
const STACK: usize = 64 * 1024;

#[derive(Default)]
struct Counts {
    taken: AtomicU64,
    open: AtomicU64,
    most: AtomicU64,
    queries: AtomicU64,
}

fn main() {
    if let Err(reason) = run() {
        eprintln!("serial: {reason}");
        std::process::exit(64);
    }
}

fn run() -> Result<(), String> {
    let address = std::env::args().nth(1).ok_or("needs ADDRESS:PORT")?;
    let failed = |error| format!("{address}: {error}");
    let listener = Arc::new(TcpListener::bind(&address).map_err(failed)?);
    let datagrams = UdpSocket::bind(&address).map_err(failed)?;
    let counts = Arc::new(Counts::default());
    let threads = || std::thread::Builder::new().stack_size(STACK);
    let failed = |error| format!("a thread: {error}");
    threads().spawn(move || answer_datagrams(&datagrams)).map_err(failed)?;
    for _ in 0..THREADS {
        let (listener, counts) = (listener.clone(), counts.clone());
        let accepting = move || {
            while let Ok((stream, _)) = listener.accept() {
                counts.taken.fetch_add(1, Ordering::Relaxed);
                let open = counts.open.fetch_add(1, Ordering::Relaxed) + 1;
                counts.most.fetch_max(open, Ordering::Relaxed);
                // The peer ends a connection whenever it likes.
                let _ = serve(stream, &counts);
                counts.open.fetch_sub(1, Ordering::Relaxed);
            }
        };
        threads().spawn(accepting).map_err(failed)?;
    }
    println!("ready");
    for line in std::io::stdin().lock().lines() {
        line.map_err(|error| format!("standard input: {error}"))?;
        let number = |count: &AtomicU64| count.load(Ordering::Relaxed);
        println!(
            "{} {} {} {}",
            number(&counts.taken),
            number(&counts.open),
            number(&counts.most),
            number(&counts.queries)
        );
    }
    Ok(())
}

/// Answers one query after the other until the peer ends.
fn serve(mut stream: TcpStream, counts: &Counts) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let read = stream.read(&mut chunk)?;
        if read == 0 {
            return Ok(());
        }
        buffer.extend_from_slice(&chunk[..read]);
        while let Some(&[high, low]) = buffer.first_chunk::<2>() {
            let end = 2 + usize::from(u16::from_be_bytes([high, low]));
            if buffer.len() < end {
                break;
            }
            let query: Vec<u8> = buffer.drain(..end).skip(2).collect();
            counts.queries.fetch_add(1, Ordering::Relaxed);
            if query.windows(5).any(|window| window == b"\x04slow") {
                std::thread::sleep(SLOW);
            }
            if let Some(answer) = answer(&query) {
                let mut framed = (answer.len() as u16).to_be_bytes().to_vec();
                framed.extend_from_slice(&answer);
                stream.write_all(&framed)?;
            }
        }
    }
}

fn answer_datagrams(socket: &UdpSocket) {
    let mut buffer = [0; 1500];
    while let Ok((length, peer)) = socket.recv_from(&mut buffer) {
        if let Some(answer) = answer(&buffer[..length]) {
            // Who asked asks again.
            let _ = socket.send_to(&answer, peer);
        }
    }
}

/// The question with one A record; `None` for what is no query with a question.
fn answer(query: &[u8]) -> Option<Vec<u8>> {
    let mut end = 12;
    loop {
        let label = usize::from(*query.get(end)?);
        end += 1 + label;
        if label == 0 {
            break;
        }
    }
    let question = query.get(12..end + 4)?;
    let mut wire = query.get(..2)?.to_vec();
    wire.extend_from_slice(&[0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
    wire.extend_from_slice(question);
    wire.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 30, 0, 4, 192, 0, 2, 1]);
    Some(wire)
}
