//! Opens listening sockets for HTTP, with Go's error texts.

use crate::corefile::system_error_text;
use crate::plugin::{split_host_port, tcp_port};
use crate::sys::interfaces;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6, TcpListener, ToSocketAddrs};

/// How many connections may wait to be accepted.
const BACKLOG: i32 = 128;

/// Listens on `address` (`host:port`; no host, `0.0.0.0` and `::` are all addresses of both
/// families, as in Go, and nothing at all is any port of them) with SO_REUSEPORT, so that a successor can
/// start beside us. The error is Go's text, such as
/// `listen tcp 127.0.0.1:8080: bind: address already in use`.
pub fn listen(address: &str) -> Result<TcpListener, String> {
    let (host, port) = match address {
        "" => ("", ""),
        _ => split_host_port(address).map_err(|why| format!("listen tcp: {why}"))?,
    };
    let socket_address = resolve(host, port).map_err(|why| format!("listen tcp: {why}"))?;
    bind(socket_address)
        .map_err(|error| format!("listen tcp {address}: bind: {}", system_error_text(&error)))
}

/// Whether a socket that is bound to `local` is one for `address`. Asks for nothing but names like
/// `localhost`.
pub fn is_at(address: &str, local: SocketAddr) -> bool {
    let at = split_host_port(address).ok().map(|(host, port)| resolve(host, port));
    at.is_some_and(|at| at.is_ok_and(|at| at == local))
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // `[::]` as written for "all addresses" serves IPv4 too; one address serves itself.
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn resolve(host: &str, port: &str) -> Result<SocketAddr, String> {
    let number = tcp_port(port)?;
    if host.is_empty() {
        return Ok(SocketAddr::new(all_addresses(), number));
    }
    if let Ok(ip) = host.parse::<IpAddr>() {
        let ip = if ip.is_unspecified() { all_addresses() } else { ip };
        return Ok(SocketAddr::new(ip, number));
    }
    if let Some((address, zone)) = host.split_once('%')
        && let Ok(ip) = address.parse::<Ipv6Addr>()
    {
        // Only a link-local address needs its interface: one that is not there is refused when it is bound.
        let scope = interfaces::index(zone).filter(|_| ip.is_unicast_link_local());
        return Ok(SocketAddrV6::new(ip, number, 0, scope.unwrap_or_default()).into());
    }
    // Names are for `localhost`; IPv4 first, as Go does.
    let mut found: Vec<SocketAddr> = (host, number)
        .to_socket_addrs()
        .map_err(|_| format!("lookup {host}: no such host"))?
        .collect();
    found.sort_by_key(SocketAddr::is_ipv6);
    found.first().copied().ok_or_else(|| format!("lookup {host}: no such host"))
}

/// `::` where there is IPv6, else `0.0.0.0`.
fn all_addresses() -> IpAddr {
    match Socket::new(Domain::IPV6, Type::STREAM, None) {
        Ok(_) => Ipv6Addr::UNSPECIFIED.into(),
        Err(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_addresses_are_those_of_both_families_however_they_are_written() {
        for address in ["", ":0", "0.0.0.0:0", "[::]:0"] {
            let listener = listen(address).unwrap();
            let port = listener.local_addr().unwrap().port();
            for client in ["127.0.0.1", "::1"] {
                let client: IpAddr = client.parse().unwrap();
                // A machine may have one family only.
                if std::net::UdpSocket::bind((client, 0)).is_ok() {
                    assert!(std::net::TcpStream::connect((client, port)).is_ok(), "{address}");
                }
            }
        }
    }

    #[test]
    fn an_address_may_name_its_interface() {
        let loopback = interfaces::index("lo").unwrap();
        let local = SocketAddrV6::new("fe80::1".parse().unwrap(), 80, 0, loopback);
        assert!(is_at("[fe80::1%lo]:80", local.into()) && !is_at("[fe80::1]:80", local.into()));
        assert!(is_at("[::1%lo]:80", "[::1]:80".parse().unwrap()));
        let error = listen("[fe80::1%nosuch0]:0").unwrap_err();
        assert!(error.starts_with("listen tcp [fe80::1%nosuch0]:0: bind: "), "{error}");
    }

    #[test]
    fn a_foreign_listener_on_the_address_is_an_error_in_gos_words() {
        let foreign = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = foreign.local_addr().unwrap().to_string();
        assert_eq!(
            listen(&address).unwrap_err(),
            format!("listen tcp {address}: bind: address already in use")
        );
    }

    #[test]
    fn a_socket_is_at_its_address_however_that_is_written() {
        let at = |address: &str, local: &str| is_at(address, local.parse().unwrap());
        assert!(at("127.0.0.1:80", "127.0.0.1:80") && at("localhost:80", "127.0.0.1:80"));
        assert!(!at("127.0.0.1:80", "127.0.0.1:81") && !at("127.0.0.1:80", "127.0.0.2:80"));
        assert!(!at("no address", "127.0.0.1:80") && !at("127.0.0.1:0", "127.0.0.1:80"));
        let everywhere = SocketAddr::new(all_addresses(), 80);
        assert!(is_at(":80", everywhere) && is_at("0.0.0.0:80", everywhere));
    }

    #[test]
    fn two_of_ours_share_an_address() {
        let first = listen("127.0.0.1:0").unwrap();
        assert!(listen(&first.local_addr().unwrap().to_string()).is_ok());
    }

    #[test]
    fn what_is_no_address_says_why() {
        for (address, text) in [
            ("0", "listen tcp: address 0: missing port in address"),
            ("foo", "listen tcp: address foo: missing port in address"),
            (":99999", "listen tcp: address 99999: invalid port"),
            (":-1", "listen tcp: address -1: invalid port"),
            (":http!", "listen tcp: lookup tcp/http!: unknown port"),
        ] {
            assert_eq!(listen(address).unwrap_err(), text);
        }
    }
}
