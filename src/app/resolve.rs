//! Host names in Corefiles: addresses from hickory-resolver, in bounded time.
//!
//! Owns the thread and the runtime that a resolution runs on, for its duration: loading a Corefile
//! is synchronous. Serving never waits for it.

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::Duration;
use tokio::runtime;
use tokio::time::timeout;

/// How long one server may take; all that is tried for a name ends within [`LONGEST`].
const ONE_SERVER: Duration = Duration::from_secs(2);

/// The longest that a name may take.
const LONGEST: Duration = Duration::from_secs(5);

/// The most addresses of a name that count.
const ADDRESSES_MOST: usize = 64;

/// The addresses of `host`, IPv4 first, at least one, asked at `servers`; without any, as the
/// system's resolv.conf and hosts file say. The name is taken as it stands, without search list.
/// The error is Go's text.
pub(super) fn resolve(host: &str, servers: &[SocketAddr]) -> Result<Vec<IpAddr>, String> {
    let failed = |why: &str| format!("lookup {host}: {why}");
    // The caller may be within a runtime, in which another cannot be waited for.
    let found = thread::scope(|scope| {
        thread::Builder::new()
            .name("resolve".to_owned())
            .spawn_scoped(scope, || look_up(host, servers))
            .map_err(|error| error.to_string())?
            .join()
            .unwrap_or_else(|_| Err("internal error while resolving".to_owned()))
    });
    match found {
        Ok(addresses) if addresses.is_empty() => Err(failed("no such host")),
        Ok(addresses) => Ok(addresses),
        Err(why) => Err(failed(&why)),
    }
}

fn look_up(host: &str, servers: &[SocketAddr]) -> Result<Vec<IpAddr>, String> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    runtime.block_on(async {
        let resolver = resolver(servers).map_err(|error| error.to_string())?;
        let name = format!("{}.", host.trim_end_matches('.'));
        match timeout(LONGEST, resolver.lookup_ip(name)).await {
            Err(_) | Ok(Err(NetError::Timeout)) => Err("i/o timeout".to_owned()),
            Ok(Err(error)) if error.is_no_records_found() => Err("no such host".to_owned()),
            Ok(Err(error)) => Err(error.to_string()),
            Ok(Ok(found)) => {
                let mut addresses: Vec<IpAddr> = found.iter().take(ADDRESSES_MOST).collect();
                addresses.sort_by_key(IpAddr::is_ipv6);
                Ok(addresses)
            }
        }
    })
}

fn resolver(servers: &[SocketAddr]) -> Result<TokioResolver, NetError> {
    let mut builder = if servers.is_empty() {
        TokioResolver::builder_tokio()?
    } else {
        let server = |server: &SocketAddr| {
            let mut config = NameServerConfig::udp_and_tcp(server.ip());
            for connection in &mut config.connections {
                connection.port = server.port();
            }
            config
        };
        let config = ResolverConfig::from_name_servers(servers.iter().map(server).collect());
        TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
    };
    let options = builder.options_mut();
    options.timeout = ONE_SERVER;
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    options.use_hosts_file =
        if servers.is_empty() { ResolveHosts::Always } else { ResolveHosts::Never };
    builder.build()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;
    use std::time::Instant;

    /// A server that answers A questions with 192.0.2.`last`, others with nothing; without `last`
    /// with NXDOMAIN.
    fn server(last: Option<u8>) -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        thread::spawn(move || {
            let mut buffer = [0; 512];
            while let Ok((length, client)) = socket.recv_from(&mut buffer) {
                let mut end = 12;
                while buffer[end] != 0 {
                    end += 1 + usize::from(buffer[end]);
                }
                end += 5;
                assert!(length >= end);
                let mut reply = buffer[..end].to_vec();
                reply[2..4].copy_from_slice(&[0x81, if last.is_some() { 0x80 } else { 0x83 }]);
                reply[6..12].fill(0);
                if let Some(last) = last.filter(|_| buffer[end - 3] == 1) {
                    reply[7] = 1;
                    reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 192, 0, 2, last]);
                }
                let _ = socket.send_to(&reply, client);
            }
        });
        address
    }

    #[test]
    fn the_servers_that_are_named_are_asked() {
        let found = resolve("dns.example.test", &[server(Some(7))]);
        assert_eq!(found, Ok(vec!["192.0.2.7".parse().unwrap()]));
        // Within a runtime too.
        let runtime = runtime::Builder::new_current_thread().build().unwrap();
        let found = runtime.block_on(async { resolve("dns.example.test.", &[server(Some(8))]) });
        assert_eq!(found, Ok(vec!["192.0.2.8".parse().unwrap()]));
    }

    #[test]
    fn a_name_that_is_not_there_says_so_in_go_s_words() {
        let found = resolve("none.example.test", &[server(None)]);
        assert_eq!(found, Err("lookup none.example.test: no such host".to_owned()));
    }

    #[test]
    fn a_server_that_is_silent_takes_bounded_time() {
        let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
        let began = Instant::now();
        let found = resolve("dns.example.test", &[silent.local_addr().unwrap()]);
        assert_eq!(found, Err("lookup dns.example.test: i/o timeout".to_owned()));
        assert!(began.elapsed() < LONGEST + Duration::from_secs(10), "{:?}", began.elapsed());
    }
}
