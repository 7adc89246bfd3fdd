//! Sockets that are bound, and those that come from elsewhere.

use super::*;
use crate::net::WORKERS_MOST;
use crate::net::tests::ports::free_port;

fn address(host: Option<&str>, port: u16) -> Address {
    Address { transport: KeyTransport::Dns, host: host.map(str::to_owned), port, h3: None }
}

#[test]
fn every_spelling_of_all_addresses_is_one_socket_of_both_families() {
    let everywhere = address(None, 53).candidates().unwrap();
    assert!(everywhere[0].is_ipv6());
    for host in ["0.0.0.0", "::"] {
        assert_eq!(address(Some(host), 53).candidates().unwrap(), everywhere, "{host}");
    }
    assert_eq!(
        address(Some("127.0.0.1"), 53).candidates().unwrap(),
        ["127.0.0.1:53".parse().unwrap()]
    );
}

#[test]
fn a_foreign_socket_is_told_in_go_s_words() {
    let port = free_port();
    let _foreign = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
    let error = bind(&address(Some("127.0.0.1"), port), 2).err().unwrap();
    assert_eq!(
        error.0,
        format!("Listen: listen tcp 127.0.0.1:{port}: bind: address already in use")
    );
    let port = free_port();
    let _foreign = std::net::UdpSocket::bind(("127.0.0.1", port)).unwrap();
    let error = bind(&address(Some("127.0.0.1"), port), 2).err().unwrap();
    assert_eq!(
        error.0,
        format!("ListenPacket: listen udp 127.0.0.1:{port}: bind: address already in use")
    );
    let foreign = std::net::TcpListener::bind("[::1]:0").unwrap();
    let port = foreign.local_addr().unwrap().port();
    let error = bind(&address(Some("::1"), port), 1).err().unwrap();
    assert_eq!(error.0, format!("Listen: listen tcp [::1]:{port}: bind: address already in use"));
}

#[test]
fn a_link_local_address_is_bound_at_its_interface() {
    let lo = interfaces::index("lo").unwrap();
    let at_lo = SocketAddrV6::new("fe80::1".parse().unwrap(), 53, 0, lo);
    assert_eq!(address(Some("fe80::1%lo"), 53).candidates(), Ok(vec![at_lo.into()]));
    let nowhere = address(Some("fe80::1%nowhere"), 53).candidates();
    assert_eq!(nowhere, Err("no such network interface".to_owned()));
}

#[test]
fn an_address_that_is_not_ours_is_told() {
    let error = bind(&address(Some("203.0.113.77"), 5300), 1).err().unwrap();
    assert_eq!(
        error.0,
        "Listen: listen tcp 203.0.113.77:5300: bind: cannot assign requested address"
    );
}

#[test]
fn every_worker_gets_sockets_on_one_port() {
    let bound = bind(&address(Some("127.0.0.1"), 0), 3).unwrap();
    let port = bound[0].local.port();
    assert_ne!(port, 0);
    for one in &bound {
        assert_eq!(one.tcp[0].local_addr().unwrap().port(), port);
        assert_eq!(one.udp[0].local_addr().unwrap().port(), port);
    }
    assert!(bind(&address(Some("127.0.0.1"), port), 1).is_ok(), "a successor may bind");
}

#[test]
fn all_addresses_are_one_socket() {
    let bound = bind(&address(None, 0), 1).unwrap();
    assert!(bound[0].local.ip().is_unspecified());
}

#[test]
fn tls_without_a_certificate_is_plain_tcp_alone() {
    let plain = Address { transport: KeyTransport::Tls, ..address(Some("127.0.0.1"), 0) };
    assert!(bind(&plain, 1).unwrap()[0].udp.is_empty());
    let quic = Address { transport: KeyTransport::Quic, ..plain };
    let bound = bind(&quic, 2).unwrap();
    assert!(bound.len() == 2 && bound.iter().all(|one| one.tcp.is_empty() && one.udp.len() == 1));
}

#[test]
fn receive_buffers_of_an_address_are_bounded_whatever_the_number_of_workers() {
    let of = |copies| {
        let bound = bind(&address(Some("127.0.0.1"), 0), copies).unwrap();
        bound.iter().map(|one| receive_buffers(&one.udp)).sum::<usize>()
    };
    // A kernel may allow less.
    let one = of(1);
    assert!(one <= 2 * RECEIVE_BUFFER, "{one}");
    assert!(one >= receive_buffers(&[UdpSocket::bind("127.0.0.1:0").unwrap()]), "{one}");
    let many = of(WORKERS_MOST);
    assert!((one..=RECEIVE_BUFFERS_MOST).contains(&many), "{many}");
}

fn handed(bound: Vec<Bound>) -> HandedSockets {
    let sets: Vec<Vec<Bound>> = bound.into_iter().map(|one| vec![one]).collect();
    duplicates(&sets).remove(0).1
}

#[test]
fn every_handed_socket_is_read_whatever_the_number_of_workers() {
    for (before, after) in [(3, 3), (5, 2), (1, 3)] {
        let own = bind(&address(Some("127.0.0.1"), 0), before).unwrap();
        let local = own[0].local;
        let adopted = adopt(handed(own), after).unwrap();
        assert_eq!(adopted.len(), after);
        for kind in [
            adopted.iter().map(|one| one.udp.len()).collect::<Vec<_>>(),
            adopted.iter().map(|one| one.tcp.len()).collect(),
        ] {
            assert_eq!(kind.iter().sum::<usize>(), before.max(after));
            assert!(kind.iter().all(|count| *count > 0), "{kind:?}");
        }
        assert!(adopted.iter().all(|one| one.local == local));
    }
}

#[test]
fn what_is_missing_of_one_kind_is_opened_and_what_came_twice_is_read_once() {
    let empty = |handed: &mut HandedSockets, kind: Type| match kind {
        Type::STREAM => handed.streams.clear(),
        _ => handed.datagrams.clear(),
    };
    for kind in [Type::STREAM, Type::DGRAM] {
        let mut half = handed(bind(&address(Some("127.0.0.1"), 0), 2).unwrap());
        empty(&mut half, kind);
        half.join(half.try_clone().unwrap());
        let adopted = adopt(half, 2).unwrap();
        for one in &adopted {
            assert_eq!((one.tcp.len(), one.udp.len()), (1, 1), "{kind:?}");
            assert_eq!(one.tcp[0].local_addr().unwrap(), one.udp[0].local_addr().unwrap());
        }
    }
}

#[test]
fn sockets_that_are_not_the_address_s_are_not_adopted() {
    let mut wrong = handed(bind(&address(Some("127.0.0.1"), 0), 1).unwrap());
    wrong.host = Some("127.0.0.2".to_owned());
    assert!(adopt(wrong, 1).is_err());
    let own = || handed(bind(&address(Some("127.0.0.1"), 0), 1).unwrap());
    let mut of_another_port = own();
    of_another_port.port = 1;
    assert!(adopt(of_another_port, 1).is_err());
    let (mut streams, mut datagrams) = (own(), own());
    streams.streams.extend(own().streams);
    datagrams.datagrams.extend(own().datagrams);
    assert!(adopt(streams, 1).is_err() && adopt(datagrams, 1).is_err(), "one is of another port");
    let mut deaf = own();
    let local = deaf.streams[0].local_addr().unwrap();
    deaf.streams.push(open(local, Type::STREAM).unwrap().into());
    assert!(adopt(deaf, 1).is_err(), "one does not listen");
    let mut unwanted = own();
    unwanted.transport = KeyTransport::Tls;
    assert_eq!(adopt(unwanted, 1).err().unwrap(), "sockets of a kind that is not wanted");
    let connected = own();
    connected.datagrams[0].connect("127.0.0.1:9").unwrap();
    assert!(adopt(connected, 1).is_err());
    let quic = Address { transport: KeyTransport::Quic, ..address(Some("127.0.0.1"), 0) };
    assert!(adopt(handed(bind(&quic, 1).unwrap()), 1).is_err(), "QUIC is not handed on");
}

#[test]
fn what_a_service_manager_opened_becomes_as_what_a_worker_opens() {
    let port = free_port();
    let given = HandedSockets {
        transport: KeyTransport::Dns,
        host: Some("127.0.0.1".to_owned()),
        port,
        streams: vec![TcpListener::bind(("127.0.0.1", port)).unwrap()],
        datagrams: vec![UdpSocket::bind(("127.0.0.1", port)).unwrap()],
        keeper: Keeper::Manager,
    };
    let adopted = adopt(given, 1).unwrap();
    // A worker that waits in the kernel serves nobody else, and a successor may bind beside it.
    for socket in [SockRef::from(&adopted[0].tcp[0]), SockRef::from(&adopted[0].udp[0])] {
        assert!(socket.nonblocking().unwrap() && socket.reuse_port().unwrap());
    }
    assert_eq!(adopted[0].keeper, Keeper::Manager);
}
