//! The interface on a real kernel: each test is run again by this binary in a network namespace of
//! its own.

use super::*;
use crate::node::claims::Claims;
use crate::node::namespace;
use std::process::Command;

#[test]
fn a_links_name_is_what_the_kernel_takes() {
    for name in ["nodelocaldns", "a", "fifteen-letters", "...", "a.b"] {
        assert!(is_name(name), "{name}");
    }
    for name in ["", "sixteen-letters-", ".", "..", "a b", "a/b", "a:b"] {
        assert!(!is_name(name), "{name}");
    }
}

#[test]
fn a_report_is_good_without_errors_of_either_kind() {
    for (add_errors, check_errors, is_good) in [(0, 0, true), (1, 0, false), (0, 1, false)] {
        assert_eq!(Report { add_errors, check_errors, ..Report::default() }.is_good(), is_good);
    }
}

fn in_namespace(test: &str) -> bool {
    namespace::in_namespace(&format!("node::interface::tests::{test}"))
}

fn ip(arguments: &str) -> String {
    let output = Command::new("ip").args(arguments.split_whitespace()).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

fn has(name: &str) -> bool {
    Command::new("ip").args(["link", "show", name]).output().unwrap().status.success()
}

/// The addresses that `ip` shows, without link-local ones.
fn addresses(name: &str) -> Vec<String> {
    let text = ip(&format!("-o addr show dev {name}"));
    let found = text.lines().filter_map(|line| line.split_whitespace().nth(3));
    found.filter(|address| !address.starts_with("fe80")).map(str::to_owned).collect()
}

/// The kind that the kernel here can make: `dummy`, or `ifb`, which is as bare.
fn kind() -> &'static str {
    match Command::new("ip").args(["link", "add", "try0", "type", "dummy"]).output() {
        Ok(output) if output.status.success() => {
            ip("link del try0");
            "dummy"
        }
        _ => "ifb",
    }
}

const BOTH: [&str; 3] = ["169.254.20.10", "10.0.0.10", "fd00::a"];

fn interface(name: &str, addresses: &[&str], directory: &Path) -> Interface {
    let addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
    Interface::of_kind(kind(), Wish { name: name.to_owned(), addresses }, directory)
}

fn said(report: &Report) -> String {
    report.lines.iter().map(|(_, line)| format!("{line}\n")).collect()
}

fn errors(report: &Report) -> (u64, u64) {
    (report.add_errors, report.check_errors)
}

#[test]
fn both_families_are_made_once_and_removed() {
    if !in_namespace("both_families_are_made_once_and_removed") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut own = interface("nodelocaldns", &BOTH, folder.path());
    let report = own.ensure();
    assert_eq!(errors(&report), (0, 0), "{}", said(&report));
    assert!(said(&report).starts_with("Added interface - nodelocaldns\n"), "{}", said(&report));
    assert_eq!(addresses("nodelocaldns"), ["169.254.20.10/32", "10.0.0.10/32", "fd00::a/128"]);
    // All of them can be listened on at once, without a pause for duplicate address detection.
    for address in BOTH {
        std::net::UdpSocket::bind((address.parse::<IpAddr>().unwrap(), 53)).unwrap();
    }
    let before = ip("-d link show nodelocaldns");
    assert!(before.contains("alias nodens"), "{before}");
    assert_eq!(own.ensure(), Report::default());
    assert_eq!(ip("-d link show nodelocaldns"), before);
    let report = own.remove(&[]);
    assert_eq!(said(&report), "Removed interface - nodelocaldns\n");
    assert!(!has("nodelocaldns"));
    assert_eq!(own.remove(&[]), Report::default());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn on_a_link_that_is_there_only_what_was_added_goes() {
    if !in_namespace("on_a_link_that_is_there_only_what_was_added_goes") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for (name, making) in [
        ("lo", ""),
        ("v0", "link add v0 type veth peer name v1"),
        ("b0", "link add b0 type bridge"),
        ("i0", "link add i0 type ifb"),
    ] {
        if !making.is_empty() {
            ip(making);
        }
        ip(&format!("link set {name} up"));
        ip(&format!("addr add 10.0.0.10/32 dev {name}"));
        ip(&format!("addr add 192.0.2.1/24 dev {name}"));
        let before = addresses(name);
        let mut own = interface(name, &BOTH, folder.path());
        let report = own.ensure();
        assert_eq!(errors(&report), (0, 0), "{}", said(&report));
        assert_eq!(addresses(name).len(), before.len() + 2, "{:?}", addresses(name));
        assert_eq!(own.ensure().lines, []);
        let report = own.remove(&[]);
        assert_eq!(
            said(&report),
            format!("Removed address 169.254.20.10 - {name}\nRemoved address fd00::a - {name}\n")
        );
        assert_eq!(addresses(name), before);
        ip(&format!("addr del 10.0.0.10/32 dev {name}"));
    }
}

#[test]
fn what_a_killed_process_left_is_taken_over_and_goes_at_the_end() {
    if !in_namespace("what_a_killed_process_left_is_taken_over_and_goes_at_the_end") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    // On a link of others the runtime directory tells what was added.
    ip("link add v0 type veth peer name v1");
    drop({
        let mut killed = interface("v0", &["10.0.0.10", "10.0.0.11"], folder.path());
        killed.ensure();
        killed
    });
    let mut own = interface("v0", &["10.0.0.10", "10.0.0.11"], folder.path());
    assert_eq!(own.ensure(), Report::default());
    own.remove(&[]);
    assert!(addresses("v0").is_empty());
    // A link of the kind and name that node-cache makes, with our addresses alone, needs no file.
    for alias in ["", "alias nodens"] {
        ip(&format!("link add nodelocaldns type {}", kind()));
        if !alias.is_empty() {
            ip(&format!("link set nodelocaldns {alias}"));
        }
        ip("addr add 10.0.0.10/32 dev nodelocaldns");
        let elsewhere = tempfile::tempdir().unwrap();
        let mut own = interface("nodelocaldns", &BOTH, elsewhere.path());
        let report = own.ensure();
        assert_eq!(errors(&report), (0, 0), "{}", said(&report));
        assert_eq!(addresses("nodelocaldns").len(), 3);
        own.remove(&[]);
        assert!(!has("nodelocaldns"));
    }
    // One with addresses of others stays.
    ip(&format!("link add nodelocaldns type {}", kind()));
    ip("addr add 192.0.2.7/32 dev nodelocaldns");
    let mut own = interface("nodelocaldns", &["10.0.0.10"], folder.path());
    let report = own.ensure();
    assert_eq!(report.troubles, [Trouble::LinkOfOthers]);
    own.remove(&[]);
    assert_eq!(addresses("nodelocaldns"), ["192.0.2.7/32"]);
}

#[test]
fn what_goes_is_back_and_counted() {
    if !in_namespace("what_goes_is_back_and_counted") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut own = interface("nodelocaldns", &BOTH, folder.path());
    own.ensure();
    let mut watch = Watch::open().unwrap();
    for (harm, repaired, line) in [
        (
            "addr del 10.0.0.10/32 dev nodelocaldns",
            1,
            "Added back address 10.0.0.10 - nodelocaldns\n",
        ),
        ("addr del fd00::a/128 dev nodelocaldns", 1, "Added back address fd00::a - nodelocaldns\n"),
        ("link del nodelocaldns", 4, "Added interface - nodelocaldns\n"),
        ("link set nodelocaldns down", 1, "Added back address fd00::a - nodelocaldns\n"),
    ] {
        ip(harm);
        // The news are there when the change is.
        let mut is_told = false;
        while let Ok(may_be_ours) = watch.read() {
            is_told |= may_be_ours;
        }
        assert!(is_told, "{harm}");
        let report = own.ensure();
        assert_eq!((errors(&report), report.repaired), ((0, 0), repaired), "{}", said(&report));
        assert!(said(&report).starts_with(line), "{harm}: {}", said(&report));
        assert_eq!(addresses("nodelocaldns").len(), 3, "{harm}");
        // Making it is no news that lead to looking again and again. The kernel tells of some changes only
        // a while behind them.
        let mut looks = 0;
        let nothing = loop {
            while watch.read().is_ok() {}
            assert_eq!(own.ensure(), Report::default(), "{harm}");
            match watch.read() {
                Err(nothing) => break nothing,
                Ok(_) => looks += 1,
            }
            assert!(looks < 100, "{harm}");
        };
        assert_eq!(nothing.kind(), std::io::ErrorKind::WouldBlock);
    }
    own.remove(&[]);
    assert!(!has("nodelocaldns"));
}

#[test]
fn a_successors_interface_is_not_torn_down() {
    if !in_namespace("a_successors_interface_is_not_torn_down") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    ip("link add v0 type veth peer name v1");
    for name in ["nodelocaldns", "v0"] {
        let mut old = interface(name, &BOTH, folder.path());
        old.ensure();
        let mut new = interface(name, &["10.0.0.10"], folder.path());
        assert_eq!(new.ensure(), Report::default());
        let mut claims = Claims::default();
        for claim in new.claims() {
            claims.take(&claim).unwrap();
        }
        let report = old.remove(&[]);
        let stays = format!("Another nodens serves with the interface {name}: it stays\n");
        assert!(said(&report).starts_with(&stays), "{}", said(&report));
        // What it does not serve on goes.
        assert_eq!(addresses(name), ["10.0.0.10/32"]);
        claims.release();
        let report = new.remove(&[]);
        assert_eq!(errors(&report), (0, 0), "{}", said(&report));
        assert!(!has(name) || addresses(name).is_empty());
    }
}

#[test]
fn what_cannot_be_made_is_said_and_counted() {
    if !in_namespace("what_cannot_be_made_is_said_and_counted") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let wish =
        |name: &str| Wish { name: name.to_owned(), addresses: vec!["10.0.0.10".parse().unwrap()] };
    let mut none = Interface::of_kind("no-such-kind", wish("nodelocaldns"), folder.path());
    let report = none.ensure();
    assert_eq!((errors(&report), &report.troubles[..]), ((1, 1), &[Trouble::NoDriver][..]));
    let lines = said(&report);
    let (two, advice) = lines.split_at(lines.match_indices('\n').nth(1).unwrap().0 + 1);
    assert_eq!(
        two,
        "Failed to add non-existent interface nodelocaldns: operation not supported\n\
         Error checking dummy device nodelocaldns - operation not supported\n"
    );
    assert!(advice.contains("-interfacename lo"), "{advice}");
    // Advice is given once, the lines each time.
    assert_eq!(said(&none.ensure()), two);
    let mut unmarked = interface("nodelocaldns", &BOTH, Path::new("/proc/nodens"));
    let report = unmarked.ensure();
    assert_eq!((errors(&report), &report.troubles[..]), ((0, 0), &[Trouble::RuntimeDirectory][..]));
    assert_eq!(said(&report).matches("runtime directory").count(), 1);
    assert_eq!(unmarked.ensure().lines, []);
    // Another link has an address already: said, and added all the same.
    ip("addr add 10.0.0.10/32 dev lo");
    let mut double = interface("nodelocaldns", &BOTH, folder.path());
    assert_eq!(double.ensure().troubles, [Trouble::AddressElsewhere]);
    // One of kube-proxy's interface is never answered, whenever that comes.
    ip("link add kube-ipvs0 type veth");
    ip("addr add 10.0.0.10/32 dev kube-ipvs0");
    ip("addr add fd00::a/128 dev kube-ipvs0");
    let report = double.ensure();
    assert_eq!(report.troubles, [Trouble::AddressOfIpvs, Trouble::AddressElsewhere]);
    assert_eq!(
        said(&report),
        "On the interface kube-ipvs0, too: 10.0.0.10, fd00::a; kube-proxy uses IPVS, which takes their \
         queries: leave them out of -localip, and give pods another local address, or use -service-rewrite\n"
    );
    assert_eq!(double.ensure().lines, []);
}

#[test]
fn a_name_that_no_link_can_have_is_refused_in_the_kernels_words() {
    if !in_namespace("a_name_that_no_link_can_have_is_refused_in_the_kernels_words") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (long, wrong) = ("numerical result out of range", "invalid argument");
    for (name, why) in [
        ("", "LinkAttrs.Name cannot be empty"),
        ("sixteen-letters-", long),
        ("a-name-that-is-too-long/by-far", long),
        ("../x", wrong),
        ("a/b", wrong),
        ("a b", wrong),
        (" ", wrong),
        ("\t", wrong),
        ("a:b", wrong),
        ("..", wrong),
        // Of which the kernel takes the second octet for white space.
        ("\u{e0}", wrong),
    ] {
        let wish = Wish { name: name.to_owned(), addresses: vec!["10.0.0.10".parse().unwrap()] };
        let mut none = Interface::of_kind(kind(), wish, folder.path());
        for _ in 0..2 {
            let report = none.ensure();
            assert_eq!((errors(&report), &report.troubles[..]), ((1, 1), &[Trouble::Kernel][..]));
            assert_eq!(
                said(&report),
                format!(
                    "Failed to add non-existent interface {name}: {why}\n\
                     Error checking dummy device {name} - {why}\n"
                )
            );
        }
        assert_eq!(none.remove(&[]), Report::default());
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn what_was_left_behind_is_told_and_removed() {
    if !in_namespace("what_was_left_behind_is_told_and_removed") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    interface("nodelocaldns", &BOTH, folder.path()).ensure();
    ip("link set lo up");
    interface("lo", &["10.0.0.10"], folder.path()).ensure();
    let mut cleaner = interface("nodelocaldns", &[], elsewhere.path());
    let both = BOTH.map(|address| address.parse().unwrap()).to_vec();
    let mut left = cleaner.left_behind().unwrap();
    left.addresses.sort_by_key(|address| both.iter().position(|one| one == address));
    assert_eq!(left, Left { link: true, addresses: both });
    assert!(has("nodelocaldns"));
    cleaner.remove_left_behind();
    assert!(!has("nodelocaldns"));
    assert_eq!(cleaner.left_behind().unwrap(), Left::default());
    assert_eq!(cleaner.remove_left_behind(), Report::default());
    let mut cleaner = interface("lo", &[], folder.path());
    let addresses_alone = Left { link: false, addresses: vec!["10.0.0.10".parse().unwrap()] };
    assert_eq!(cleaner.left_behind().unwrap(), addresses_alone);
    cleaner.remove_left_behind();
    assert_eq!(addresses("lo"), ["127.0.0.1/8", "::1/128"]);
}
