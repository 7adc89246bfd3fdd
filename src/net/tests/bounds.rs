//! What clients may do to us: limits that hold under bad input.

use super::https::request;
use super::*;
use crate::metrics::names;
use crate::net::tcp::{
    HTTPS_OCTETS, OCTETS_LEAST, TCP_OCTETS, WAITING_PER_CONNECTION_MOST, connections_most,
};
use crate::net::worker::WAITING_OCTETS;
use crate::sys::descriptors;
use rand::RngExt;
use socket2::{Domain, Socket, Type};

fn asked_over(stream: &mut TcpStream) -> Vec<u8> {
    stream.write_all(&framed(&query("a.test.", 1))).unwrap();
    read_frame(stream).unwrap()
}

#[test]
fn a_client_that_sends_an_octet_now_and_then_is_closed_in_its_time() {
    let server = Running::start(&answering(".:0", 9, "timeouts {\nread 1s\n}"), 1);
    let mut stream = server.tcp();
    stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let start = Instant::now();
    // As long as a message can be: it would take two hours.
    let mut octets = [0xff, 0xff].into_iter().chain(std::iter::repeat(7));
    let mut answer = [0; 1];
    let ended = loop {
        assert!(start.elapsed() < PATIENCE, "it is never closed");
        let sent = stream.write_all(&[octets.next().unwrap()]);
        match (sent, stream.read(&mut answer)) {
            (Ok(()), Err(error)) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            (_, ended) => break ended,
        }
    };
    assert!(!matches!(ended, Ok(1..)), "{ended:?}");
    assert!(start.elapsed().as_millis() >= 900, "{:?}", start.elapsed());
    server.stop();
}

#[test]
fn idle_connections_are_bounded_and_the_one_idle_for_longest_makes_room() {
    const BEYOND: usize = 50;
    descriptors::raise_limit();
    let most = connections_most(descriptors::limit().unwrap(), 1);
    let server = Running::start(&answering(".:0", 9, "timeouts {\nread 60s\nidle 60s\n}"), 1);
    let mut streams = Vec::new();
    for number in 0..most + BEYOND {
        let mut stream = server.tcp();
        if number < 2 * BEYOND {
            // The first ones were idle before the others were there.
            stream.write_all(&framed(&query("a.test.", 1))).unwrap();
            read_frame(&mut stream).unwrap();
        }
        streams.push(stream);
    }
    // A connection that speaks is idle for the shortest time.
    assert_eq!(last_octet(&asked_over(&mut streams[2 * BEYOND])), Some(9));
    for (number, stream) in streams[..BEYOND].iter_mut().enumerate() {
        assert!(matches!(stream.read(&mut [0; 1]), Ok(0)), "{number} was idle for longest");
    }
    for stream in &mut streams[BEYOND..] {
        assert_eq!(last_octet(&asked_over(stream)), Some(9));
    }
    assert_eq!(server.workers.connections(), most);
    drop(streams);
    server.stop();
}

/// A connection from 127.0.0.`last`.
fn tcp_from(server: &Running, last: u8) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, last], 0)).into()).unwrap();
    socket.connect(&server.address().into()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.into()
}

#[test]
fn a_client_that_is_busy_on_every_connection_makes_room_for_others() {
    let mut held = Held::start();
    let corefile = format!(
        ".:0 {{\nbind 127.0.0.1\ntimeouts {{\nread {NEVER}\nidle {NEVER}\n}}\nhosts {{\n192.0.2.9 a.test\n\
         fallthrough\n}}\nforward . 127.0.0.1:{} {{\nprefer_udp\nmax_fails 0\n}}\n}}\n",
        held.port()
    );
    // As few connections as there can be, and enough for each to wait.
    let budget = Arc::new(Budget::new(Some(800 << 10)));
    let server = Running::start_within(&corefile, 1, budget);
    let mut streams: Vec<TcpStream> = (0..OCTETS_LEAST / TCP_OCTETS)
        .map(|number| {
            let mut stream = tcp_from(&server, 2);
            stream.write_all(&framed(&query(&format!("n{number}.test."), 1))).unwrap();
            held.until_asked();
            stream
        })
        .collect();
    assert_eq!(last_octet(&asked_over(&mut tcp_from(&server, 3))), Some(9));
    assert_eq!(octets_to_its_end(&mut streams[0]), b"", "it was silent for longest");
    server.stop();
}

#[test]
fn garbage_is_answered_or_counted_and_leaves_nothing_behind() {
    let server = Running::start(&answering(".:0", 9, ""), 1);
    let mut random = StdRng::seed_from_u64(4);
    let socket = server.udp();
    for _ in 0..20_000 {
        let mut octets = [0; 600];
        random.fill(&mut octets);
        let length = random.random_range(0..octets.len());
        if random.random() {
            // Half of them look like queries: one question, nothing else.
            octets[2..12].copy_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        }
        socket.send(&octets[..length]).unwrap();
    }
    assert_eq!(server.ask("a.test."), Some(9));
    for _ in 0..200 {
        let mut octets = vec![0; 5_000];
        random.fill(octets.as_mut_slice());
        let mut stream = server.tcp();
        // It may be closed before all is written.
        let _ = stream.write_all(&octets);
    }
    assert_eq!(last_octet(&asked_over(&mut server.tcp())), Some(9));
    assert_eq!(server.workers.parked(), 0);
    server.stop();
}

#[test]
fn a_query_is_in_flight_until_it_is_answered() {
    let upstream = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = upstream.local_addr().unwrap();
    let corefile = format!(".:0 {{\nbind 127.0.0.1\nforward . {address}\n}}\n");
    let budget = Arc::<Budget>::default();
    let server = Running::start_within(&corefile, 1, budget.clone());
    let in_flight = || {
        let text = server.equipment.metrics.text();
        let line = text.lines().find(|line| line.starts_with("nodens_queries_in_flight ")).unwrap();
        line.rsplit_once(' ').unwrap().1.to_owned()
    };
    assert_eq!(in_flight(), "0");
    let socket = server.udp();
    let sent = query("a.test.", 1);
    socket.send(&sent).unwrap();
    let mut asked = [0; 512];
    let (length, from) = upstream.recv_from(&mut asked).unwrap();
    assert_eq!(in_flight(), "1");
    assert_eq!(budget.waiting.used(), WAITING_OCTETS + 4 * sent.len() as u64);
    // REFUSED, with the question.
    asked[2] |= 0x80;
    asked[3] = 5;
    upstream.send_to(&asked[..length], from).unwrap();
    let mut reply = [0; 512];
    socket.recv(&mut reply).unwrap();
    assert_eq!(reply[3] & 15, 5);
    let end = Instant::now() + PATIENCE;
    while in_flight() != "0" {
        assert!(Instant::now() < end, "{}", in_flight());
    }
    server.stop();
    assert_eq!(budget.waiting.used(), 0);
}

#[test]
fn a_query_that_finds_no_memory_to_wait_in_fails_at_once() {
    let nobody = UdpSocket::bind("127.0.0.1:0").unwrap();
    let upstream = nobody.local_addr().unwrap();
    let corefile = format!(".:0 {{\nbind 127.0.0.1\nforward . {upstream}\n}}\n");
    let budget = Arc::new(Budget::new(Some(0)));
    let server = Running::start_within(&corefile, 1, budget.clone());
    let socket = server.udp();
    socket.send(&query("a.test.", 1)).unwrap();
    let mut reply = [0; 512];
    let length = socket.recv(&mut reply).unwrap();
    assert_eq!((length > 12, reply[3] & 15), (true, 2));
    assert_eq!(budget.waiting.used(), 0);
    assert!(is_counted(&server, "nodens_queries_shed_total{reason=\"memory\"} 1"));
    server.stop();
}

#[test]
fn a_connection_that_holds_back_more_than_there_is_memory_is_closed() {
    let budget = Arc::new(Budget::new(Some(0)));
    let server = Running::start_within(&answering(".:0", 9, ""), 1, budget.clone());
    let mut small = server.tcp();
    assert_eq!(last_octet(&asked_over(&mut small)), Some(9));
    let mut stream = server.tcp();
    // A message that never becomes whole.
    stream.write_all(&[0xff; 30_000]).unwrap();
    assert!(!matches!(stream.read(&mut [0; 1]), Ok(1..)));
    drop((small, stream));
    server.stop();
    assert_eq!(budget.buffers.used(), 0);
}

/// A block like [`answering`]'s, whose responses do not go with what their connection takes itself.
fn answering_at_length(key: &str, more: &str) -> String {
    let addresses: Vec<String> = (1..=100).map(|last| format!("192.0.2.{last} a.test\n")).collect();
    format!("{key} {{\nbind 127.0.0.1\n{more}\nhosts {{\n{}}}\n}}\n", addresses.concat())
}

#[test]
fn replies_over_https_and_quic_count_until_their_client_has_them() {
    let timeouts = format!("timeouts {{\nread {NEVER}\nidle {NEVER}\n}}");
    let budget = Arc::new(Budget::new(Some(0)));
    let corefile = answering_at_length("https://.:0", &timeouts);
    let server = Running::start_within(&corefile, 1, budget.clone());
    let asked = query("a.test.", 0);
    let head =
        format!("POST /dns-query HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", asked.len());
    let mut stream = server.tcp();
    stream.write_all(&[head.as_bytes(), &asked].concat()).unwrap();
    // It would be kept for the next request.
    octets_to_its_end(&mut stream);
    assert!(server.equipment.metrics.text().contains(&starved(1)));
    server.stop();
    assert_eq!(budget.buffers.used(), 0);

    let budget = Arc::new(Budget::new(Some(0)));
    let corefile = answering_at_length("quic://.:0", "tls /up.pem /up.key");
    let upstream = Running::start_within(&corefile, 1, budget.clone());
    let server = Running::start(&over_quic(upstream.address().port()), 1);
    server.ask("a.test.");
    assert!(!upstream.equipment.metrics.text().contains(&starved(0)));
    server.stop();
    upstream.stop();
    assert_eq!(budget.buffers.used(), 0);
}

#[test]
fn queries_over_https_and_quic_count_as_they_come() {
    let timeouts = format!("timeouts {{\nread {NEVER}\nidle {NEVER}\n}}");
    let budget = Arc::new(Budget::new(Some(0)));
    let server = Running::start_within(&answering("https://.:0", 9, &timeouts), 1, budget.clone());
    let mut stream = server.tcp();
    let head = b"POST /dns-query HTTP/1.1\r\nHost: x\r\nContent-Length: 9000\r\n\r\n";
    stream.write_all(&[&head[..], &[0; 8000]].concat()).unwrap();
    octets_to_its_end(&mut stream);
    assert!(server.equipment.metrics.text().contains(&starved(1)));
    server.stop();
    assert_eq!(budget.buffers.used(), 0);

    let budget = Arc::new(Budget::new(Some(0)));
    let sealed = answering("quic://.:0", 9, "tls /up.pem /up.key");
    let upstream = Running::start_within(&sealed, 1, budget.clone());
    let server = Running::start(&over_quic(upstream.address().port()), 1);
    let socket = server.udp();
    // With 2000 octets of padding.
    let mut asked = query("a.test.", 1);
    asked[11] = 1;
    asked.extend(b"\0\0\x29\x04\xd0\0\0\0\0\x07\xd4\0\x0c\x07\xd0");
    asked.resize(asked.len() + 2000, 0);
    socket.send(&asked).unwrap();
    socket.recv(&mut [0; 512]).unwrap();
    assert!(!upstream.equipment.metrics.text().contains(&starved(0)));
    server.stop();
    upstream.stop();
    assert_eq!(budget.buffers.used(), 0);
}

/// Asks the QUIC server at `port`, once for each query.
pub(super) fn over_quic(port: u16) -> String {
    format!(
        ".:0 {{\nbind 127.0.0.1\nforward . quic://127.0.0.1:{port} {{\ntls /ca.pem\n\
         tls_servername up.test\nexpire {NEVER}\nmax_fails 0\nmax_connect_attempts 1\n}}\n}}\n"
    )
}

/// The line of so many connections that were closed for want of memory.
fn starved(count: u8) -> String {
    format!("\n{} {count}\n", names::CONNECTIONS_STARVED.name)
}

/// A server whose connections have the least memory, and how many of `octets` each that is.
fn scarce(key: &str, octets: u64) -> (Running, Arc<Budget>, usize) {
    let budget = Arc::new(Budget::new(Some(0)));
    let more = if key.starts_with('.') { "" } else { "tls /up.pem /up.key" };
    let server = Running::start_within(&answering(key, 9, more), 1, budget.clone());
    (server, budget, usize::try_from(OCTETS_LEAST / octets).unwrap())
}

#[test]
fn connections_keep_to_their_memory_and_the_one_idle_for_longest_makes_room() {
    const BEYOND: usize = 5;
    let (server, budget, most) = scarce(".:0", TCP_OCTETS);
    let mut streams = Vec::new();
    for _ in 0..most + BEYOND {
        streams.push(server.tcp());
        assert_eq!(last_octet(&asked_over(streams.last_mut().unwrap())), Some(9));
    }
    assert_eq!(budget.connections.used(), most as u64 * TCP_OCTETS);
    for stream in &mut streams[..BEYOND] {
        assert!(matches!(stream.read(&mut [0; 1]), Ok(0)), "it was idle for longest");
    }
    for stream in &mut streams[BEYOND..] {
        assert_eq!(last_octet(&asked_over(stream)), Some(9));
    }
    drop(streams);
    server.stop();
    assert_eq!(budget.connections.used(), 0);
}

#[test]
fn a_client_that_is_shaking_hands_makes_room_for_another() {
    let (server, budget, most) = scarce("https://.:0", HTTPS_OCTETS);
    let mut silent: Vec<_> = (0..most).map(|_| server.tcp()).collect();
    for another in 0..3 {
        let (head, _) = request(&server, "GET /", b"");
        assert!(head.starts_with("http/1.1 404"), "{another}: {head}");
    }
    // One made room for all three, which came one after the other.
    assert!(octets_to_its_end(&mut silent[0]).is_empty());
    assert!(budget.connections.used() <= most as u64 * HTTPS_OCTETS);
    drop(silent);
    server.stop();
    assert_eq!(budget.connections.used(), 0);
}

#[test]
fn each_worker_gives_what_its_thread_keeps_of_memory_as_long_as_it_works() {
    let running = Running::start(&answering(".:0", 1, ""), 3);
    let mut spares = running.workers.spares();
    assert_eq!(spares.collect(PATIENCE).len(), 3);
    assert_eq!(running.ask("a.test"), Some(1), "they go on");
    running.stop();
    assert_eq!(spares.collect(PATIENCE).len(), 0);
}

/// A counter of the server's, as its scrape shows it.
fn is_counted(server: &Running, line: &str) -> bool {
    server.equipment.metrics.text().lines().any(|one| one == line)
}

/// Waits until it is so.
fn until(mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "it never is");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_client_that_takes_no_reply_in_its_time_is_closed_and_counted_and_a_silent_one_is_not_counted()
{
    let more = "timeouts {\nread 1s\nwrite 1s\nidle 1s\n}";
    let server = Running::start(&answering(".:0", 9, more), 1);
    octets_to_its_end(&mut server.tcp());
    assert!(is_counted(&server, "nodens_tcp_slow_readers_total 0"));
    let mut stream = server.tcp();
    let burst: Vec<u8> = (0..1000).flat_map(|id| framed(&query("a.test.", id))).collect();
    // It takes no more of them when the replies have no room, and then the connection is closed.
    while stream.write_all(&burst).is_ok() {}
    until(|| is_counted(&server, "nodens_tcp_slow_readers_total 1"));
    server.stop();
}

#[test]
fn a_connection_whose_reply_finds_no_memory_is_closed_and_counted() {
    let address = |number| format!("10.0.0.{number} a.test\n");
    let addresses: String = (0..250).map(address).collect();
    let budget = Arc::new(Budget::new(Some(0)));
    let corefile = format!(".:0 {{\nbind 127.0.0.1\nhosts {{\n{addresses}}}\n}}\n");
    let server = Running::start_within(&corefile, 1, budget.clone());
    let mut stream = server.tcp();
    let burst: Vec<u8> = (0..20).flat_map(|id| framed(&query("a.test.", id))).collect();
    stream.write_all(&burst).unwrap();
    octets_to_its_end(&mut stream);
    until(|| is_counted(&server, "nodens_tcp_connections_starved_total 1"));
    server.stop();
    assert_eq!(budget.buffers.used(), 0);
}

#[test]
fn what_a_connection_holds_back_is_counted_once_however_it_grows() {
    const PARTS: [u64; 3] = [10_000, 20_000, 30_000];
    let budget = Arc::<Budget>::default();
    let server = Running::start_within(&answering(".:0", 9, ""), 1, budget.clone());
    let mut stream = server.tcp();
    let mut sent = 0;
    for part in PARTS {
        // Of a message that never becomes whole.
        stream.write_all(&vec![0xff; part as usize]).unwrap();
        sent += part;
        until(|| budget.buffers.used() + 8192 > sent);
    }
    assert!(budget.buffers.used() < 131_072, "{}", budget.buffers.used());
    drop(stream);
    server.stop();
    assert_eq!(budget.buffers.used(), 0);
}

#[test]
fn a_connection_with_a_query_that_waits_makes_no_room_for_others() {
    let mut upstream = Held::start();
    let port = upstream.port();
    let corefile = format!(
        ".:0 {{\nbind 127.0.0.1\ntimeouts {{\nread {NEVER}\nidle {NEVER}\n}}\nhosts {{\n192.0.2.9 a.test\n\
         fallthrough\n}}\n{}}}\n",
        asking_once(port).replace("max_fails 0", "max_fails 0\nprefer_udp")
    );
    // Enough for one that waits, and for few connections.
    let budget = Arc::new(Budget::new(Some(1 << 20)));
    let octets = budget.connections.most().max(OCTETS_LEAST);
    let server = Running::start_within(&corefile, 1, budget);
    let mut waiting = server.tcp();
    waiting.write_all(&framed(&query("n.test.", 7))).unwrap();
    upstream.until_asked();
    let most = usize::try_from(octets / TCP_OCTETS).unwrap();
    let mut others = Vec::new();
    for _ in 0..most + 3 {
        others.push(server.tcp());
        assert_eq!(last_octet(&asked_over(others.last_mut().unwrap())), Some(9));
    }
    assert!(octets_to_its_end(&mut others[0]).is_empty(), "it was idle for longest");
    upstream.answer();
    assert_eq!(id(&read_frame(&mut waiting).unwrap()), 7);
    drop((waiting, others));
    server.stop();
}

#[test]
fn a_connection_that_spoke_again_is_not_the_one_idle_for_longest() {
    let (server, _, most) = scarce(".:0", TCP_OCTETS);
    let mut streams: Vec<TcpStream> = (0..most).map(|_| server.tcp()).collect();
    for place in (1..most).chain([0]) {
        asked_over(&mut streams[place]);
    }
    asked_over(&mut server.tcp());
    assert!(octets_to_its_end(&mut streams[1]).is_empty());
    assert_eq!(last_octet(&asked_over(&mut streams[0])), Some(9));
    drop(streams);
    server.stop();
}

#[test]
fn queries_beyond_those_of_a_connection_that_may_wait_are_taken_once_one_is_answered() {
    const BEYOND: usize = 9;
    let mut upstream = Held::start();
    let corefile = format!(
        ".:0 {{\nbind 127.0.0.1\nhosts {{\n192.0.2.9 a.test\nfallthrough\n}}\n{}}}\n",
        asking_once(upstream.port()).replace("max_fails 0", "max_fails 0\nprefer_udp")
    );
    let server = Running::start(&corefile, 1);
    let mut stream = server.tcp();
    let count = WAITING_PER_CONNECTION_MOST + BEYOND;
    let all = (0..count).flat_map(|id| framed(&query(&format!("n{id}.test."), id as u16)));
    stream.write_all(&all.collect::<Vec<u8>>()).unwrap();
    for _ in 0..WAITING_PER_CONNECTION_MOST {
        upstream.until_asked();
    }
    // The worker has done with what it read when it answers another client.
    assert_eq!(server.ask("a.test."), Some(9));
    assert_eq!(server.workers.parked(), WAITING_PER_CONNECTION_MOST);
    upstream.answer();
    for _ in 0..BEYOND {
        upstream.until_asked();
    }
    upstream.answer();
    let mut answered: Vec<u16> =
        (0..count).map(|_| id(&read_frame(&mut stream).unwrap())).collect();
    answered.sort_unstable();
    assert!(answered.into_iter().eq(0..count as u16), "each once");
    stream.shutdown(Shutdown::Write).unwrap();
    assert!(octets_to_its_end(&mut stream).is_empty());
    server.stop();
}

#[test]
fn what_a_long_message_took_is_given_back_once_it_is_whole() {
    let budget = Arc::<Budget>::default();
    let server = Running::start_within(&answering(".:0", 9, ""), 1, budget.clone());
    let mut stream = server.tcp();
    // A response, which is not answered.
    let mut message = vec![0; 65_535];
    message[2] |= 0x80;
    let framed = framed(&message);
    let (one, two) = framed.split_at(30_000);
    stream.write_all(one).unwrap();
    until(|| budget.buffers.used() > 20_000);
    stream.write_all(two).unwrap();
    until(|| budget.buffers.used() < 10_000);
    assert_eq!(last_octet(&asked_over(&mut stream)), Some(9));
    server.stop();
}

#[test]
fn what_is_no_query_is_not_answered_and_counted() {
    let server = Running::start(&answering(".:0", 9, ""), 1);
    let mut response = query("a.test.", 1);
    response[2] |= 0x80;
    let (socket, mut stream) = (server.udp(), server.tcp());
    socket.send(&response).unwrap();
    socket.send(&query("a.test.", 2)).unwrap();
    let mut reply = [0; 512];
    socket.recv(&mut reply).unwrap();
    assert_eq!(id(&reply), 2);
    assert!(is_counted(&server, "nodens_messages_ignored_total 1"));
    stream.write_all(&framed(&response)).unwrap();
    assert_eq!(id(&asked_over(&mut stream)), 1);
    assert!(is_counted(&server, "nodens_messages_ignored_total 2"));
    server.stop();
}
