//! Corefiles into snapshots: listeners, their settings, contradictions.

use super::*;
use crate::plugin::Level;

/// Builds a Corefile on the real table of directives.
fn build_from(corefile: &str, journal: &FakeJournal) -> Result<Snapshot, String> {
    let surroundings = MemorySurroundings::new();
    let tree = crate::corefile::parse(
        corefile.as_bytes(),
        "Corefile",
        &crate::plugin::is_known,
        &surroundings,
    )
    .map_err(|error| error.to_string())?;
    let world = World {
        surroundings: &surroundings,
        metrics: &Registry::new(1),
        journal,
        random: &mut StdRng::seed_from_u64(1),
        default_port: 53,
        carried: Carried::default(),
    };
    build(&tree, world).map_err(|error| error.to_string())
}

/// The labels and zones of a Corefile's listeners, or the error.
fn built(corefile: &str) -> Result<Vec<String>, String> {
    let snapshot = build_from(corefile, &FakeJournal::default())?;
    let shown = snapshot.servers.iter().map(|server| {
        let mut zones: Vec<(usize, usize)> =
            server.zones.iter().map(|(wire, block)| (wire.len(), block)).collect();
        zones.sort_unstable();
        format!("{} {zones:?}", server.identity.label)
    });
    Ok(shown.collect())
}

#[test]
fn blocks_that_share_an_address_are_one_listener() {
    let servers = built(
        "example.org:53 {\n bind 127.0.0.1 ::1\n whoami\n}\n. {\n bind 127.0.0.1\n whoami\n}\n\
         .:5353 {\n whoami\n}\ntls://a.test {\n whoami\n}\n",
    );
    assert_eq!(
        servers.unwrap(),
        [
            "dns://127.0.0.1:53 [(1, 1), (13, 0)]",
            "dns://[::1]:53 [(13, 0)]",
            "dns://:5353 [(1, 2)]",
            "tls://:853 [(8, 3)]",
        ]
    );
}

#[test]
fn debug_in_one_block_shows_all_lines() {
    for (corefile, least) in [
        ("a.test {\n whoami\n}\nb.test {\n debug\n}\n", Level::Debug),
        ("a.test {\n whoami\n}\n", Level::Info),
    ] {
        let snapshot = build_from(corefile, &FakeJournal::default()).unwrap();
        assert_eq!(snapshot.least_level(), least, "{corefile}");
    }
}

#[test]
fn blocks_of_one_listener_complete_each_other_s_timeouts() {
    let corefile = "a.test {\n timeouts {\n read 1s\n idle 7s\n }\n}\n\
                    b.test {\n timeouts {\n idle 2s\n }\n}\nc.test {\n}\n";
    let snapshot = build_from(corefile, &FakeJournal::default()).unwrap();
    let Timeouts { read, write, idle, .. } = snapshot.servers[0].timeouts;
    assert_eq!([read, write, idle].map(|time| time.as_secs()), [1, 5, 2]);
}

#[test]
fn a_listener_takes_other_classes_where_one_of_its_blocks_forwards() {
    let corefile = "a.test {\n whoami\n}\nb.test {\n forward . 192.0.2.1\n}\n.:54 {\n whoami\n}\n";
    let snapshot = build_from(corefile, &FakeJournal::default()).unwrap();
    let any_class = snapshot.servers.iter().map(|server| server.any_class);
    assert_eq!(any_class.collect::<Vec<_>>(), [true, false]);
}

#[test]
fn a_listener_that_does_not_speak_what_its_scheme_says_is_warned_about() {
    let journal = FakeJournal::default();
    let corefile = "https://. {\n whoami\n}\ntls://. {\n whoami\n}\n\
                    grpc://.:2 {\n whoami\n}\n";
    build_from(corefile, &journal).unwrap();
    assert_eq!(
        journal.take(),
        [
            "[WARNING] https://:443 speaks HTTP without TLS: its block has no tls",
            "[WARNING] grpc://:2 speaks DNS over TCP, without HTTP and TLS",
        ]
    );
}

#[test]
fn an_empty_corefile_is_whoami_and_log_on_the_default_port() {
    assert_eq!(built("# nothing\n").unwrap(), ["dns://:53 [(1, 0)]"]);
}

#[test]
fn an_ipv4_address_in_ipv6_form_is_the_ipv4_listener() {
    let corefile = ".:1 {\n bind ::ffff:10.0.0.1\n}\na.test:1 {\n bind 10.0.0.1\n}\n";
    assert_eq!(built(corefile).unwrap(), ["dns://10.0.0.1:1 [(1, 0), (8, 1)]"]);
}

#[test]
fn contradictions_are_told_in_coredns_s_words_with_their_line() {
    let table = [
        (
            ".:53 {\n bind 127.0.0.1\n}\n.:53 {\n bind 127.0.0.1\n}\n",
            "Corefile:4 - cannot serve dns://.:53 on 127.0.0.1 - it is already defined",
        ),
        (
            ".:53 {\n bind 127.0.0.1\n}\n.:53 {\n errors\n}\n",
            "Corefile:4 - cannot serve dns://.:53 - zone overlap listener capacity with dns://.:53 on 127.0.0.1",
        ),
        (
            ".:53 {\n errors\n}\n.:53 {\n bind 127.0.0.1\n}\n",
            "Corefile:4 - cannot serve dns://.:53 on 127.0.0.1 - zone overlap listener capacity with dns://.:53",
        ),
        (
            "a.test a.test {\n errors\n}\n",
            "Corefile:1 - cannot serve dns://a.test.:53 - it is already defined",
        ),
        (
            "a.test:53 a.test. {\n errors\n}\n",
            "Corefile:1 - cannot serve dns://a.test.:53 - it is already defined",
        ),
        (
            ".:1 {\n errors\n}\nquic://.:2 {\n errors\n}\n",
            "Corefile:4 - ListenPacket: quic: tls.Config not set",
        ),
        (
            ".:1 {\n errors\n}\nhttps3://.:2 {\n errors\n}\n",
            "Corefile:4 - DoH3 requires TLS, no TLS config found",
        ),
        (".:70000 {\n bind 127.0.0.1\n}\n", "Corefile:1 - address 70000: invalid port"),
        ("unix://a.test:70000 {\n errors\n}\n", "Corefile:1 - address 70000: invalid port"),
        (
            ".:port {\n errors\n}\n",
            "Corefile:1 - error inspecting server blocks: zone is not a valid domain name: .:port",
        ),
        (
            ". {\n errors\n view x\n}\n",
            "Corefile:3 - no action found for directive 'view' with server type 'dns' (missing a plugin?); a block is chosen by its zone and address: give each kind of client an address of its own with `bind`, or write `acl`",
        ),
    ];
    for (corefile, error) in table {
        assert_eq!(built(corefile).unwrap_err(), error, "{corefile}");
    }
}

#[test]
fn the_first_mistake_in_directive_order_is_told() {
    let error = built(". {\n cache x y z 1 2 {\n foo\n }\n bind 300.0.0.1\n}\n").unwrap_err();
    assert!(error.contains("bind") && error.contains("Corefile:5"), "{error}");
}

#[test]
fn one_zone_with_other_capitals_in_one_block_is_one_zone() {
    assert_eq!(built("a.test A.TEST {\n whoami\n}\n").unwrap(), ["dns://:53 [(8, 0)]"]);
}
