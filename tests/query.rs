//! `nodens query` beside dig: the same arguments, the same servers, the same output; and what it says
//! and how it ends when servers are silent, wrong or not believed.

// A test may panic, and why it did not run is for whoever runs it.
#![allow(clippy::unwrap_used, clippy::print_stdout)] // A test may panic, and says what it lacks.

#[path = "query/beside_dig.rs"]
mod beside_dig;
#[path = "query/hostile.rs"]
mod hostile;
mod missing;
mod peers;

use beside_dig::knot;
use hostile::{empty_reply, hostile};
use peers::{Lab, are_here, free_port};
use serde_json::Value;
use std::net::{TcpListener, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

/// What a run gave.
#[derive(Debug)]
struct Told {
    code: Option<i32>,
    out: String,
    err: String,
}

fn run(command: &mut Command) -> Told {
    let output = command.output().unwrap();
    let text = |octets| String::from_utf8_lossy(octets).into_owned();
    Told { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
}

fn nodens(words: &[&str]) -> Told {
    run(Command::new(env!("CARGO_BIN_EXE_nodens")).arg("query").args(words))
}

/// Asks a server of loopback with a line of words, split at blanks.
fn answer(program: &str, port: u16, line: &str) -> Told {
    let port = port.to_string();
    // Where the line does not say: no server of loopback takes as long.
    let mut words = vec!["@127.0.0.1", "-p", &port, "+time=60"];
    words.extend(line.split(' ').filter(|word| !word.is_empty()));
    match program {
        "dig" => run(Command::new("dig").args(words)),
        _ => nodens(&words),
    }
}

fn query(port: u16, line: &str) -> Told {
    answer("nodens", port, line)
}

/// Lines and exit codes.
#[test]
fn scripts_are_told_what_came() {
    let Some((lab, port)) = knot() else { return };
    for (line, code) in [
        ("www.types.test", 0),
        // There is such a name, without such a record: an answer.
        ("www.types.test NAPTR +short", 0),
        ("none.types.test +short", 1),
        ("elsewhere.test", 1),
        ("www.types.test none.types.test www.types.test", 1),
        ("www.types.test +edns=1", 1),
    ] {
        let told = query(port, line);
        assert_eq!((told.code, told.err.as_str()), (Some(code), ""), "{line}: {told:?}");
    }
    let told = query(port, "www.types.test +edns=1");
    assert!(told.out.contains("status: BADVERS"), "{told:?}");
    // Of a name that is there the reply is given, though another one is not.
    let told = query(port, "+short none.types.test www.types.test AAAA");
    assert_eq!(told.out, "::ffff:192.0.2.80\n2001:db8::80\n", "{}", lab.text("knot.log"));
}

#[test]
fn programs_read_objects() {
    let Some((_lab, port)) = knot() else { return };
    let told = query(port, "-o json +nsid +dnssec WWW.types.test none.types.test");
    assert_eq!((told.code, told.err.as_str()), (Some(1), ""));
    let objects: Vec<Value> = serde_json::Deserializer::from_str(&told.out)
        .into_iter()
        .collect::<Result<_, _>>()
        .unwrap();
    let [found, missing] = &objects[..] else { panic!("{}", told.out) };
    assert_eq!(found["rcode"], "NOERROR");
    assert_eq!(found["transport"], "udp");
    assert_eq!(found["flags"], serde_json::json!(["qr", "aa", "rd"]));
    assert_eq!(found["server"]["port"], port);
    assert_eq!(
        found["question"],
        serde_json::json!([{"name": "WWW.types.test.", "class": "IN", "type": "A"}])
    );
    assert_eq!(found["answer"][0]["data"], "192.0.2.80");
    assert_eq!(found["answer"][0]["ttl"], 300);
    assert_eq!(found["edns"]["flags"], serde_json::json!(["do"]));
    assert_eq!(found["edns"]["options"][0]["name"], "NSID");
    assert_eq!(found["edns"]["options"][0]["value"], "6b 6e 6f 74 (\"knot\")");
    assert!(found["microseconds"].as_u64().unwrap() > 0);
    assert_eq!(missing["rcode"], "NXDOMAIN");
    assert_eq!(missing["authority"][0]["type"], "SOA");
}

/// The system's servers, search list and `@name` as resolv.conf and hosts have them.
#[test]
fn without_a_server_the_systems_are_asked() {
    let told = nodens(&["@no-such-host.invalid", "a", "+tries=1", "+time=1"]);
    assert_eq!((told.code, told.out.as_str()), (Some(69), ""), "{told:?}");
    assert!(told.err.starts_with("nodens query: the server 'no-such-host.invalid' is unknown: "));
    assert_eq!(told.err.lines().count(), 1, "{told:?}");
    let Some((_lab, port)) = knot() else { return };
    let told = nodens(&["@localhost", "-4", "-p", &port.to_string(), "www.types.test"]);
    assert_eq!(told.code, Some(0), "{told:?}");
    assert!(told.out.contains(&format!(";; SERVER: 127.0.0.1#{port}(localhost) (UDP)\n")));
}

#[test]
fn nobody_and_silence_are_one_line_within_the_time_that_was_given() {
    let closed = free_port();
    for (line, carrier) in
        [("+tries=2", "UDP"), ("+tcp", "TCP"), ("+tls", "TLS"), ("+https", "HTTPS")]
    {
        let told = query(closed, &format!("a.test {line}"));
        let line = format!(
            "nodens query: no reply from 127.0.0.1#{closed} ({carrier}): connection refused\n"
        );
        assert_eq!((told.code, told.out.as_str(), told.err), (Some(69), "", line));
    }
    // A socket that nobody reads, a listener that nobody accepts from.
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent_port = silent.local_addr().unwrap().port();
    let mute_port = mute.local_addr().unwrap().port();
    for (port, line) in [
        (silent_port, ""),
        (silent_port, "+quic"),
        (mute_port, "+tcp"),
        (mute_port, "+tls"),
        (mute_port, "+https"),
    ] {
        let began = Instant::now();
        let told = query(port, &format!("a.test +time=1 +tries=2 {line}"));
        assert_eq!((told.code, told.out.as_str()), (Some(69), ""), "{line}: {told:?}");
        assert!(told.err.ends_with("no reply within 1 s\n"), "{line}: {told:?}");
        assert_eq!(told.err.lines().count(), 1, "{line}: {told:?}");
        assert!(began.elapsed() >= Duration::from_secs(2), "{line}: {:?}", began.elapsed());
    }
}

#[test]
fn unbound_answers_over_tls_and_https_and_who_is_not_believed_is_named() {
    let Some(mut lab) = Lab::with_certificates(&["openssl", "unbound"]) else { return };
    let (tls, https) = lab.unbound("own");
    let authority = format!("+tls-ca={}", lab.path("ca.pem").display());
    let stranger = format!("+tls-ca={}", lab.path("stranger.pem").display());
    let name = "+tls-hostname=dns.test";
    for (port, words, carrier) in [
        (tls, vec!["+tls"], "TLS"),
        (tls, vec!["+tls", &authority], "TLS"),
        (tls, vec!["+tls", &authority, name], "TLS"),
        (https, vec!["+https"], "HTTPS"),
        (https, vec!["+https-get", &authority, name], "HTTPS"),
        (https, vec!["+https=/dns-query", &authority], "HTTPS"),
    ] {
        let told = query(port, &format!("www.test {}", words.join(" ")));
        assert_eq!((told.code, told.err.as_str()), (Some(0), ""), "{words:?}: {told:?}");
        assert!(told.out.contains("www.test.\t\t60\tIN\tA\t192.0.2.80\n"), "{words:?}: {told:?}");
        let line = format!(";; SERVER: 127.0.0.1#{port}(127.0.0.1) ({carrier})\n");
        assert!(told.out.contains(&line), "{words:?}: {told:?}");
        assert_eq!(query(port, &format!("none.test {}", words.join(" "))).code, Some(1));
    }
    for (port, words, why) in [
        (
            tls,
            format!("+tls {authority} +tls-hostname=wrong.test"),
            "its certificate is not believed",
        ),
        (tls, format!("+tls {stranger} {name}"), "its certificate is not believed"),
        (https, format!("+https {stranger} {name}"), "its certificate is not believed"),
        (https, "+https=/elsewhere".to_owned(), "HTTP status 404 Not Found"),
    ] {
        let told = query(port, &format!("www.test {words}"));
        assert_eq!((told.code, told.out.as_str()), (Some(76), ""), "{words}: {told:?}");
        assert!(told.err.contains(why), "{words}: {told:?}");
        assert_eq!(told.err.lines().count(), 1, "{words}: {told:?}");
    }
}

#[test]
fn nodens_answers_over_every_carrier_that_it_has() {
    let Some(mut lab) = Lab::with_certificates(&["openssl"]) else { return };
    let (plain, tls, https, quic) = (free_port(), free_port(), free_port(), free_port());
    let folder = lab.folder.path().display().to_string();
    let secure = format!("    tls {folder}/own.pem {folder}/own.key\n");
    let body = "    bind 127.0.0.1\n    hosts {\n        192.0.2.80 www.test\n    }\n";
    let corefile = format!(
        "quic://.:{quic} https://.:{https} tls://.:{tls} {{\n{body}{secure}}}\n.:{plain} {{\n{body}}}\n"
    );
    lab.nodens(&corefile, plain);
    lab.until_listening(tls, "nodens.log");
    lab.until_listening(https, "nodens.log");
    let verified = format!("+tls-ca={folder}/ca.pem +tls-hostname=dns.test");
    for (port, words) in [
        (plain, String::new()),
        (plain, "+tcp".to_owned()),
        (tls, format!("+tls {verified}")),
        (https, format!("+https {verified}")),
        (https, format!("+https-get {verified}")),
        (quic, format!("+quic {verified}")),
        (quic, "+quic".to_owned()),
    ] {
        let told = query(port, &format!("www.test +short {words}"));
        assert_eq!(told.out, "192.0.2.80\n", "{words}: {told:?}\n{}", lab.text("nodens.log"));
    }
    let told =
        query(quic, &format!("www.test +quic +tls-ca={folder}/stranger.pem +tries=1 +time=2"));
    assert!(matches!(told.code, Some(69 | 76)), "{told:?}");
    assert_eq!(told.err.lines().count(), 1, "{told:?}");
}

#[test]
fn files_of_authorities_are_read_before_anybody_is_asked() {
    let lab = Lab::new();
    let missing = lab.path("missing.pem");
    let empty = lab.write("empty.pem", "no certificate\n");
    let broken =
        lab.write("broken.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    let folder = lab.folder.path().to_owned();
    for (path, code, why) in [
        (&missing, 66, "no such file or directory"),
        (&empty, 65, "it has no certificate"),
        (&broken, 65, ""),
        (&folder, 65, "it is no file of certificates"),
    ] {
        let told = query(1, &format!("a.test +tls +tls-ca={}", path.display()));
        assert_eq!((told.code, told.out.as_str()), (Some(code), ""), "{told:?}");
        assert!(told.err.starts_with("nodens query: +tls-ca: "), "{told:?}");
        assert!(told.err.contains(&path.display().to_string()), "{told:?}");
        assert!(told.err.contains(why), "{told:?}");
        assert_eq!(told.err.lines().count(), 1, "{told:?}");
    }
}

#[test]
fn a_wrong_line_is_told_and_nobody_is_asked() {
    for (line, why) in [
        ("+frobnicate a", "unknown option '+frobnicate'"),
        ("a +time=0", "+time: '0' is not from 1 to 300"),
        ("a -p x", "-p: 'x' is not from 1 to 65535"),
        ("a..b", "'a..b': an empty label"),
        ("@192.0.2.1 -6 a", "no address of 192.0.2.1 is of the family asked for"),
        ("a AXFR", "zone transfers are not for a cache: use dig"),
        ("+tls +tls-hostname=a..b a", "+tls-hostname: 'a..b' is no server's name"),
    ] {
        let words: Vec<&str> = line.split(' ').collect();
        let told = nodens(&words);
        assert_eq!((told.code, told.out.as_str()), (Some(64), ""), "{line}: {told:?}");
        assert!(told.err.starts_with(&format!("nodens query: {why}")), "{line}: {told:?}");
        assert_eq!(told.err.lines().count(), 1, "{line}: {told:?}");
    }
}

#[test]
fn a_terminal_gets_colours_unless_it_asks_for_none() {
    if !are_here(&["script"]) {
        return;
    }
    let port = hostile(|query| vec![empty_reply(query)]);
    let line = format!("{} query @127.0.0.1 -p {port} a.test", env!("CARGO_BIN_EXE_nodens"));
    let shown = |term: &str, no_colour: &str| {
        let mut command = Command::new("script");
        command.args(["-qec", &line, "/dev/null"]).env("TERM", term).env("NO_COLOR", no_colour);
        run(&mut command).out
    };
    assert!(shown("xterm", "").contains("status: \u{1b}[0m\u{1b}[32mNOERROR\u{1b}[0m"));
    for (term, no_colour) in [("xterm", "1"), ("dumb", "")] {
        let text = shown(term, no_colour);
        assert!(text.contains("status: NOERROR") && !text.contains('\u{1b}'), "{text}");
    }
    assert!(!query(port, "a.test").out.contains('\u{1b}'), "nothing but text for a pipe");
}
