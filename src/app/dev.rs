//! Development mode: started without arguments, serve this machine from a Corefile of our own; or
//! from the one that is named, as it is.
//!
//! Takes away what this machine does not have (an address that is taken, IPv6, a resolv.conf) and
//! says so in one line each, instead of failing for it.

use super::handover::is_served;
use super::inherited::Inherited;
use super::load::{Awaiting, Source};
use super::surroundings::Machine;
use crate::admin;
use crate::corefile::{Directive, Surroundings, Tree, parse, system_error_text};
use crate::net::can_listen;
use crate::plugin::is_known;
use crate::sys::unix;
use std::net::{IpAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// The Corefile, with the port that both serving and [`Plan`] use.
const COREFILE: &str = include_str!("../../config/dev.Corefile");

/// How errors call it.
const NAME: &str = "dev.Corefile";

/// The port of the Corefile's one block.
pub(super) const PORT: u16 = 1053;

/// The port of server blocks that name none, for CoreDNS.
const STANDARD_PORT: u16 = 53;

/// How long a connection on this machine may take.
const CONNECT_TIME: Duration = Duration::from_millis(500);

const RESOLV_CONF: &str = "/etc/resolv.conf";

/// What can be served here.
#[derive(Debug)]
pub(super) struct Plan {
    /// The Corefile without what cannot be had, or the one that was named.
    pub(super) source: Source,
    /// The port of server blocks that name none.
    pub(super) default_port: u16,
    /// One line for each thing that is missing.
    pub(super) missing: Vec<String>,
    /// What is served, from whom, and how to try it.
    pub(super) lines: Vec<String>,
}

/// Where this user's processes meet: `$XDG_RUNTIME_DIR/nodens`, and for root `/run/nodens`. `None`
/// where there is neither.
pub(super) fn runtime_directory(variable: impl Fn(&str) -> Option<String>) -> Option<PathBuf> {
    let of_user = variable("XDG_RUNTIME_DIR").filter(|path| path.starts_with('/'));
    let directory = of_user.or_else(|| (unix::own_user() == 0).then(|| "/run".to_owned()))?;
    Some(Path::new(&directory).join("nodens"))
}

/// Looks at this machine. What a nodens serves that can be taken over from (it is met in `directory`)
/// is not tried: even a socket that is open for a moment takes queries away. Nor is what is `inherited`.
/// The error says why nothing can be served.
pub(super) fn plan(directory: Option<&Path>, inherited: &Inherited) -> Result<Plan, String> {
    let mut takes_over = false;
    let mut tree =
        parse(COREFILE.as_bytes(), NAME, &is_known, &Machine).map_err(|error| error.to_string())?;
    let mut missing = Vec::new();
    let is_given = |text: &str| text.parse().is_ok_and(|address| inherited.is_at(address));
    let addresses = keep_arguments(&mut tree, "bind", |address| {
        // It has a file for the first of its addresses alone.
        takes_over |= directory.is_some_and(|directory| is_served(directory, address, PORT));
        if is_given(&at(address, PORT)) || takes_over && accepts(&at(address, PORT)) {
            return true;
        }
        let port = PORT.to_string();
        can_listen(Some(address), &port)
            .map_err(|why| missing.push(format!("not serving on {}: {why}", at(address, PORT))))
            .is_ok()
    });
    if addresses.is_empty() {
        return Err(format!("nothing to serve on: {}", missing.join("; ")));
    }
    let mut endpoints = Vec::new();
    for (word, path) in [("prometheus", "metrics"), ("health", "health")] {
        let kept = keep_arguments(&mut tree, word, |address| {
            if is_given(address) || takes_over && accepts(address) {
                return true;
            }
            admin::listen(address)
                .map_err(|why| missing.push(format!("no /{path} on {address}: {why}")))
                .is_ok()
        });
        endpoints.extend(kept.iter().map(|address| format!("http://{address}/{path}")));
    }
    let upstreams = nameservers(&Machine);
    let source = match upstreams.is_empty() {
        false => Source::Made(Box::new(tree)),
        true => {
            missing.push(format!(
                "no usable nameserver in {RESOLV_CONF}: only names of /etc/hosts can be resolved \
                 until it names one; or give upstreams in a Corefile of your own: nodens run COREFILE"
            ));
            Source::Awaiting(Box::new(until_there_are_upstreams(tree)))
        }
    };
    let serving: Vec<String> = addresses.iter().map(|address| at(address, PORT)).collect();
    let from = match upstreams.is_empty() {
        true => "/etc/hosts".to_owned(),
        false => format!("{} ({RESOLV_CONF})", upstreams.join(", ")),
    };
    let mut lines =
        vec![format!("serving DNS on {} (UDP and TCP), from {from}", serving.join(", "))];
    if !endpoints.is_empty() {
        lines.push(format!("see {}", endpoints.join(" and ")));
    }
    lines.push(format!("try: dig @{} -p {PORT} example.com", addresses[0]));
    Ok(Plan { source, default_port: PORT, missing, lines })
}

/// The tree without upstreams while resolv.conf names none: a laptop that is started before its network.
/// `reload`, which is in it, looks again.
fn until_there_are_upstreams(tree: Tree) -> Awaiting {
    let mut until = tree.clone();
    for block in &mut until.blocks {
        // Without upstreams there is no loop to look for either.
        let keeps = |word: &str| !["forward", "loop"].contains(&word);
        block.directives.retain(|directive| keeps(&directive.word));
    }
    let is_there = |surroundings: &dyn Surroundings| !nameservers(surroundings).is_empty();
    Awaiting { until, then: tree, is_there, came: Arc::default() }
}

/// The plan for a Corefile of one's own: nothing in it is changed. The error is CoreDNS's text.
pub(super) fn plan_of(path: &Path) -> Result<Plan, String> {
    let name = path.display().to_string();
    let text = Machine
        .read(path)
        .map_err(|error| format!("cannot read {name}: {}", system_error_text(&error)))?;
    let tree = parse(&text, &name, &is_known, &Machine).map_err(|error| error.to_string())?;
    let keys = tree.blocks.iter().flat_map(|block| &block.keys).map(|key| key.text.as_str());
    let line = format!("serving {} by {name}", keys.collect::<Vec<&str>>().join(", "));
    let (source, missing) = (Source::File(path.to_owned()), Vec::new());
    Ok(Plan { source, default_port: STANDARD_PORT, missing, lines: vec![line] })
}

/// Why it cannot start, with what to do about the reasons that lie outside the Corefile.
pub(super) fn with_advice(why: &str) -> String {
    let advice = if why.ends_with("bind: permission denied") {
        " (ports below 1024 need the capability NET_BIND_SERVICE; .:1053 does not)"
    } else if why.to_lowercase().contains("too many open files") {
        " (raise the limit of open files: ulimit -n 1024)"
    } else {
        ""
    };
    format!("{why}{advice}")
}

/// Whether somebody accepts TCP connections there.
fn accepts(address: &str) -> bool {
    let address = address.parse();
    address.is_ok_and(|address| TcpStream::connect_timeout(&address, CONNECT_TIME).is_ok())
}

/// Removes the arguments of a directive that `keep` refuses, and the directive when none is left.
/// Gives those that stay.
fn keep_arguments(tree: &mut Tree, word: &str, mut keep: impl FnMut(&str) -> bool) -> Vec<String> {
    let mut kept = Vec::new();
    for block in &mut tree.blocks {
        block.directives.retain_mut(|Directive { word: own, tokens }| {
            if own != word {
                return true;
            }
            let mut is_first = true;
            tokens.retain(|token| std::mem::take(&mut is_first) || keep(&token.text));
            kept.extend(tokens.iter().skip(1).map(|token| token.text.clone()));
            tokens.len() > 1
        });
    }
    kept
}

/// The addresses of resolv.conf.
fn nameservers(surroundings: &dyn Surroundings) -> Vec<String> {
    let content = surroundings.read(Path::new(RESOLV_CONF)).unwrap_or_default();
    String::from_utf8_lossy(&content)
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            (words.next() == Some("nameserver")).then(|| words.next())?
        })
        .filter(|word| {
            let address = word.split('%').next().unwrap_or_default();
            address.parse::<IpAddr>().is_ok()
        })
        .map(str::to_owned)
        .collect()
}

fn at(address: &str, port: u16) -> String {
    if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corefile::MemorySurroundings;

    #[test]
    fn nameservers_are_the_addresses_of_resolv_conf() {
        let text = "# x\nsearch a\nnameserver 192.0.2.1\nnameserver fe80::1%eth0\nnameserver name\n\
                    nameserver\n";
        let world = MemorySurroundings::new().with_file(RESOLV_CONF, text);
        assert_eq!(nameservers(&world), ["192.0.2.1", "fe80::1%eth0"]);
        assert!(nameservers(&MemorySurroundings::new()).is_empty());
    }

    #[test]
    fn what_is_refused_is_taken_out_of_the_tree() {
        let mut tree =
            parse(COREFILE.as_bytes(), NAME, &is_known, &MemorySurroundings::new()).unwrap();
        assert_eq!(keep_arguments(&mut tree, "bind", |address| address != "::1"), ["127.0.0.1"]);
        assert!(keep_arguments(&mut tree, "health", |_| false).is_empty());
        let words: Vec<&str> =
            tree.blocks[0].directives.iter().map(|directive| &*directive.word).collect();
        assert!(words.contains(&"bind") && !words.contains(&"health"), "{words:?}");
    }

    #[test]
    fn what_lies_outside_the_corefile_is_told_with_what_to_do() {
        let told = |why: &str| with_advice(why).replacen(why, "", 1);
        for why in [
            "worker 0: Too many open files (os error 24)",
            "ListenPacket: listen udp 127.0.0.1:1053: socket: too many open files",
        ] {
            assert_eq!(told(why), " (raise the limit of open files: ulimit -n 1024)");
        }
        assert!(told("Listen: listen tcp 127.0.0.1:53: bind: permission denied").contains("1024"));
        assert_eq!(told("Corefile:1 - Error during parsing: Unknown directive 'x'"), "");
    }

    #[test]
    fn the_port_is_the_corefiles() {
        assert!(COREFILE.contains(&format!(".:{PORT} {{")));
    }
}
