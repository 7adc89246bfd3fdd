//! What `nodens query` says of servers whose replies are wrong, cut or somebody else's.

use super::query;
use std::io::{Read, Write};
use std::net::{TcpListener, UdpSocket};

/// A server that sends `replies` made of each query.
pub(crate) fn hostile(replies: impl Fn(&[u8]) -> Vec<Vec<u8>> + Send + 'static) -> u16 {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok((length, client)) = socket.recv_from(&mut buffer) {
            for reply in replies(&buffer[..length]) {
                let _ = socket.send_to(&reply, client);
            }
        }
    });
    port
}

/// The query as a reply without records.
pub(crate) fn empty_reply(query: &[u8]) -> Vec<u8> {
    let mut reply = query.to_vec();
    reply[2] |= 0x80;
    // Its OPT record stays: it is ours, and may be anybody's.
    reply
}

#[test]
fn datagrams_that_are_no_reply_are_passed_over() {
    let port = hostile(|query| {
        let mut stranger = empty_reply(query);
        stranger[0] ^= 0xff;
        let mut other = empty_reply(query);
        other[13] ^= 1;
        let junk = (0..20).map(|_| b"x".to_vec());
        [stranger, other, query.to_vec()]
            .into_iter()
            .chain(junk)
            .chain([empty_reply(query)])
            .collect()
    });
    let told = query(port, "a.test");
    assert_eq!((told.code, told.err.as_str()), (Some(0), ""), "{told:?}");
    assert!(told.out.contains(";; a datagram was no reply: its question is another one\n"));
    assert!(told.out.contains(";; a datagram was no reply: it is a query itself\n"));
    assert_eq!(told.out.matches("a datagram was no reply").count(), 5, "{told:?}");
    // When nothing else comes, the line says what did.
    let port = hostile(|_| vec![b"junk".to_vec()]);
    let told = query(port, "a.test +time=1 +tries=1");
    assert_eq!(told.code, Some(69));
    assert_eq!(
        told.err,
        format!(
            "nodens query: no reply from 127.0.0.1#{port} (UDP): no reply within 1 s; a datagram \
             was no reply: 4 octets are no message\n"
        )
    );
}

#[test]
fn a_malformed_reply_is_one_line() {
    let cut = |query: &[u8]| {
        let mut reply = empty_reply(query);
        reply[7] = 1; // An answer that is not there: the OPT record stands in its place.
        reply[11] = 1;
        vec![reply]
    };
    let pointer = |query: &[u8]| {
        let mut reply = empty_reply(query);
        reply[7] = 1;
        reply[11] = 0;
        reply.truncate(12 + 1 + 1 + 1 + 4 + 5); // a.test: the question ends here.
        reply.extend([0xc0, 24, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0]);
        vec![reply]
    };
    for port in [hostile(cut), hostile(pointer)] {
        let told = query(port, "a.test +short");
        assert_eq!((told.code, told.out.as_str()), (Some(76), ""), "{told:?}");
        let start = format!("nodens query: the reply from 127.0.0.1#{port} is malformed: ");
        assert!(told.err.starts_with(&start), "{told:?}");
        assert_eq!(told.err.lines().count(), 1, "{told:?}");
    }
}

/// A server of one TCP connection after the other, which reads a query and sends `octets`.
fn stream_server(octets: impl Fn(&[u8]) -> Vec<u8> + Send + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let mut length = [0; 2];
            if stream.read_exact(&mut length).is_err() {
                continue;
            }
            let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
            let _ = stream.read_exact(&mut query);
            let _ = stream.write_all(&octets(&query));
        }
    });
    port
}

#[test]
fn a_stream_that_ends_or_lies_is_one_line() {
    let closes = stream_server(|_| Vec::new());
    let cuts = stream_server(|_| vec![0, 200, 1, 2, 3]);
    let lies = stream_server(|query| {
        let mut reply = empty_reply(query);
        reply[0] ^= 0xff;
        [&(reply.len() as u16).to_be_bytes()[..], &reply].concat()
    });
    for (port, code, why) in [
        (closes, 69, "the connection was closed without a reply"),
        (cuts, 69, "the connection was closed without a reply"),
        (lies, 76, "what came is no reply: its id is "),
    ] {
        let told = query(port, "a.test +tcp");
        assert_eq!((told.code, told.out.as_str()), (Some(code), ""), "{told:?}");
        let start = format!("nodens query: no reply from 127.0.0.1#{port} (TCP): {why}");
        assert!(told.err.starts_with(&start), "{told:?}");
        assert_eq!(told.err.lines().count(), 1, "{told:?}");
    }
    // Somebody there who speaks something else than TLS.
    let told = query(lies, "a.test +tls +time=2 +tries=1");
    assert!(matches!(told.code, Some(69 | 76)), "{told:?}");
    assert_eq!(told.err.lines().count(), 1, "{told:?}");
}
