//! nodens on a node: a pod asks it, real DNS servers stand behind it. Needs root, network
//! namespaces, Knot DNS, dig and dnsperf; says so and passes where they are missing, unless
//! `NODENS_TEST_ALL=1`.

// A lab that cannot be made fails the test, and why a test did not run is for whoever runs it.
#![allow(clippy::unwrap_used, clippy::print_stdout)] // A test may panic, and says what it lacks.

// What the deployments use of it is not used here.
mod lab;
mod missing;

use lab::{CLUSTER, EXTERNAL, LOCAL, NAMES, SECOND, SERVICE, lab, node_corefile};

/// The sum of all series of a counter.
fn sum(metrics: &str, family: &str) -> f64 {
    metrics
        .lines()
        .filter(|line| line.strip_prefix(family).is_some_and(|rest| rest.starts_with(['{', ' '])))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

#[test]
fn a_pod_resolves_cluster_and_outside_names() {
    let Some(mut lab) = lab() else { return };
    let cluster = lab.knot(CLUSTER);
    let external = lab.knot(EXTERNAL);
    let nodens = lab.nodens(&node_corefile(), "web.default.svc.cluster.local");

    const PTR6: &str = "7.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa";
    for (name, qtype, status, answers) in [
        ("web.default.svc.cluster.local", "A", "NOERROR", &["A 10.0.1.7"][..]),
        ("web.default.svc.cluster.local", "AAAA", "NOERROR", &["AAAA fd00::7"]),
        ("db.default.svc.cluster.local", "A", "NOERROR", &["A 10.244.1.50", "A 10.244.1.51"]),
        (
            "_sql._tcp.db.default.svc.cluster.local",
            "SRV",
            "NOERROR",
            &[
                "SRV 0 50 5432 db-0.db.default.svc.cluster.local.",
                "SRV 0 50 5432 db-1.db.default.svc.cluster.local.",
            ],
        ),
        ("web.default.svc.cluster.local", "TXT", "NOERROR", &[]),
        ("none.default.svc.cluster.local", "A", "NXDOMAIN", &[]),
        ("50.1.244.10.in-addr.arpa", "PTR", "NOERROR", &["PTR db-0.db.default.svc.cluster.local."]),
        (PTR6, "PTR", "NOERROR", &["PTR web.default.svc.cluster.local."]),
        ("www.example.org", "A", "NOERROR", &["A 192.0.2.80"]),
        ("www.example.org", "AAAA", "NOERROR", &["AAAA 2001:db8::80"]),
        ("none.example.org", "A", "NXDOMAIN", &[]),
    ] {
        // The second and later ones are hits.
        for (server, options) in
            [(LOCAL, &[][..]), (LOCAL, &["+tcp"]), (SERVICE, &[]), (SERVICE, &["+tcp"])]
        {
            let told = lab.dig(server, name, qtype, options);
            let place = format!("{name} {qtype} @{server} {options:?}\n{}", nodens.log());
            assert_eq!(told.status, status, "{place}");
            assert_eq!(told.answers, answers, "{place}");
        }
    }

    let metrics = lab.get("10.244.1.1", 9253, "/metrics");
    assert!(metrics.starts_with("HTTP/1.1 200"), "{metrics}");
    assert!(sum(&metrics, "coredns_cache_hits_total") >= 30.0, "{metrics}");
    assert!(sum(&metrics, "coredns_cache_misses_total") >= 11.0, "{metrics}");
    assert_eq!(sum(&metrics, "coredns_panics_total"), 0.0);
    assert!(metrics.contains("server=\"dns://169.254.20.10:53\""), "{metrics}");

    let health = lab.get(LOCAL, 8080, "/health");
    assert!(health.starts_with("HTTP/1.1 200") && health.ends_with("OK"), "{health}");

    // `force_tcp`: what goes upstream goes over TCP. One UDP query was the lab's own.
    for knot in [&cluster, &external] {
        assert!(knot.queries("tcp4") > 0);
        assert!(knot.queries("udp4") <= 5, "{}", knot.queries("udp4"));
    }
}

#[test]
fn when_an_upstream_dies_the_next_one_answers_at_once() {
    let Some(mut lab) = lab() else { return };
    let first = lab.knot(EXTERNAL);
    let second = lab.knot(SECOND);
    let corefile = format!(
        ".:53 {{\n    errors\n    cache 30\n    bind {LOCAL} {SERVICE}\n    \
         forward . {EXTERNAL} {SECOND} {{\n        force_tcp\n        policy sequential\n    }}\n}}\n"
    );
    let nodens = lab.nodens(&corefile, "www.example.org");
    for number in 0..20 {
        let told = lab.dig(LOCAL, &format!("n{number}.example.org"), "A", &[]);
        assert_eq!(told.status, "NOERROR", "{}", nodens.log());
    }
    assert!(first.queries("tcp4") >= 20);
    drop(first);
    // Without the time that a busy machine takes to start a program.
    let mut took: Vec<u32> = Vec::new();
    for number in 20..60 {
        let name = format!("n{number}.example.org");
        let asked = [&*format!("@{LOCAL}"), &*name, "A", "+tries=1", "+time=15"];
        let output = lab.run("pod", "dig", &asked);
        let told = String::from_utf8_lossy(&output.stdout);
        assert!(told.contains("status: NOERROR"), "{told}\n{}", nodens.log());
        let time = told.split("Query time: ").nth(1).and_then(|rest| rest.split(' ').next());
        took.push(time.unwrap().parse().unwrap());
    }
    // Who waits for the dead one waits with every query; a busy machine is not that slow with half of
    // them.
    took.sort_unstable();
    assert!(took[took.len() / 2] < 1000, "{took:?} ms");
    assert!(second.queries("tcp4") >= 40);
}

#[test]
fn ten_seconds_at_full_speed_lose_no_query() {
    let Some(mut lab) = lab() else { return };
    let _cluster = lab.knot(CLUSTER);
    let _external = lab.knot(EXTERNAL);
    let nodens = lab.nodens(&node_corefile(), "www.example.org");
    let names: String = (0..NAMES).map(|number| format!("n{number}.example.org A\n")).collect();
    let names = lab.write("names", &names);
    let arguments = ["-s", LOCAL, "-d", names.to_str().unwrap(), "-l", "10", "-c", "10", "-T", "1"];
    let output = lab.run("pod", "dnsperf", &arguments);
    let text = String::from_utf8_lossy(&output.stdout);
    let line = |start: &str| {
        let found = text.lines().find_map(|line| line.trim().strip_prefix(start));
        found.unwrap_or_default().trim().to_owned()
    };
    assert!(line("Queries lost:").starts_with("0 "), "{text}\n{}", nodens.log());
    assert!(line("Response codes:").starts_with("NOERROR"), "{text}");
    assert!(!line("Response codes:").contains(','), "{text}");
    let completed: u64 =
        line("Queries completed:").split(' ').next().unwrap_or("0").parse().unwrap_or(0);
    assert!(completed as usize >= 5 * NAMES, "{text}");
    println!("{}", line("Queries per second:"));
}
