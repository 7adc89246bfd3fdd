//! `nodens query` beside dig: the same arguments, the same servers, the same output; and what it says
//! and how it ends when servers are silent, wrong or not believed.

// A test may panic, and why it did not run is for whoever runs it.
#![allow(clippy::unwrap_used, clippy::print_stdout)] // A test may panic, and says what it lacks.

mod missing;
mod peers;

use peers::{Lab, PATIENCE, are_here, free_port};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{TcpListener, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

const ZONE: &str = r#"$ORIGIN types.test.
$TTL 300
@ 3600 SOA ns hostmaster\.dns 1 7200 1800 86400 30
@ NS ns
ns A 192.0.2.1
www A 192.0.2.80
www A 192.0.2.81
www AAAA 2001:db8::80
www AAAA ::ffff:192.0.2.80
a-name-that-is-longer-than-its-column.of-a-record A 192.0.2.82
alias CNAME www
outside CNAME www.elsewhere.test.
mail MX 10 ns
mail MX 20 www
text TXT plain "two words" "quote\" back\\slash; semicolon" "\007bell \200"
text TXT ""
_sip._tcp SRV 1 2 5060 www
naptr NAPTR 100 10 "u" "E2U+sip" "!^.*$!sip:info@types.test!" .
caa CAA 0 issue "ca.test; account=\"7\""
ssh SSHFP 4 2 123456789abcdef67890123456789abcdef67890123456789abcdef123456789
_443._tcp TLSA 3 1 1 123456789abcdef67890123456789abcdef67890123456789abcdef123456789
host HINFO "A CPU" OS
person RP hostmaster text
cell AFSDB 1 ns
old DNAME elsewhere.test.
uri URI 10 1 "https://types.test/\"x\""
key OPENPGPKEY mQENBFYyMDEzMTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDEyMzQ1Njc4OTAx
eui EUI48 00-00-5e-00-53-2a
eui EUI64 00-00-5e-ef-10-00-00-2a
web HTTPS 1 . alpn="h2,h3" port=8443 ipv4hint=192.0.2.1,192.0.2.2 ipv6hint=2001:db8::1
web HTTPS 0 www
web SVCB 2 www mandatory=alpn alpn=h2 no-default-alpn ech=AEX+DQ== key65333="x y"
unknown TYPE65280 \# 4 0A000001
empty TYPE65281 \# 0
long TYPE65282 \# 40 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f2021222324252627
odd\032name\$ A 192.0.2.83
child NS ns.child
ns.child A 192.0.2.84
child DS 60485 5 2 D4B7D520E7BB5F0F67674A0CCEB1E3E0614B93C4F9E99B8383F6A1E4469DA50A
*.wild A 192.0.2.85
big TXT "0123456789012345678901234567890123456789012345678901234567890123456789"
big TXT "1123456789012345678901234567890123456789012345678901234567890123456789"
big TXT "2123456789012345678901234567890123456789012345678901234567890123456789"
big TXT "3123456789012345678901234567890123456789012345678901234567890123456789"
big TXT "4123456789012345678901234567890123456789012345678901234567890123456789"
big TXT "5123456789012345678901234567890123456789012345678901234567890123456789"
big TXT "6123456789012345678901234567890123456789012345678901234567890123456789"
"#;

/// Signed by Knot DNS: keys, signatures, denials.
const SIGNED: &str = "@ 300 SOA ns hostmaster 1 7200 1800 86400 30\n@ 300 NS ns\n\
                      ns 300 A 192.0.2.1\nwww 300 A 192.0.2.80\nwww 300 TXT x\n";

/// Lines of arguments, as both programs take them.
const LINES: &[&str] = &[
    "types.test",
    "types.test SOA",
    "types.test. ns",
    "NS types.test",
    "www.types.test",
    "www.types.test AAAA",
    "aaaa -q www.types.test",
    "-t AAAA www.types.test IN",
    "-c IN -t a www.types.test",
    "WWW.Types.TEST A",
    "a-name-that-is-longer-than-its-column.of-a-record.types.test",
    "alias.types.test",
    "alias.types.test AAAA +tcp",
    "outside.types.test",
    "mail.types.test MX",
    "text.types.test TXT",
    "_sip._tcp.types.test SRV",
    "naptr.types.test NAPTR",
    "caa.types.test CAA",
    "ssh.types.test SSHFP",
    "_443._tcp.types.test TLSA",
    "host.types.test HINFO",
    "person.types.test RP",
    "cell.types.test AFSDB",
    "old.types.test DNAME",
    "below.old.types.test A",
    "uri.types.test URI",
    "key.types.test OPENPGPKEY",
    "eui.types.test EUI48",
    "eui.types.test EUI64",
    "web.types.test HTTPS",
    "web.types.test SVCB",
    "unknown.types.test TYPE65280",
    "empty.types.test TYPE65281",
    "long.types.test TYPE65282",
    r"odd\032name\$.types.test",
    "child.types.test DS",
    "www.child.types.test +norecurse",
    "anything.wild.types.test",
    "big.types.test TXT +bufsize=512",
    "big.types.test TXT +bufsize=512 +ignore",
    "big.types.test TXT +noedns",
    "types.test ANY",
    "types.test ANY +notcp",
    "none.types.test",
    "www.types.test NAPTR",
    "elsewhere.test",
    "version.bind CH TXT",
    "CH TXT version.bind",
    "-x 192.0.2.80",
    "-x 2001:db8::1",
    "www.types.test mail.types.test MX types.test NS",
    "MX mail.types.test types.test",
    "nsec.test DNSKEY",
    "nsec.test A +dnssec",
    "www.nsec.test +dnssec",
    "www.nsec.test NSEC",
    "none.nsec.test +dnssec",
    "nsec3.test DNSKEY +dnssec",
    "nsec3.test NSEC3PARAM",
    "nsec3.test CDS",
    "nsec3.test CDNSKEY",
    "none.nsec3.test +dnssec",
    "www.types.test +nottlid +noall +answer",
    "www.types.test +noclass +noall +answer",
    "www.types.test +noall +auth",
    "www.types.test +noall +question",
    "www.types.test +noall +ans +add",
    "www.types.test +nocmd +noquestion +nostats +nocomments",
    "types.test MX +nocmd +nostats +nocomments",
    "www.types.test +noad +cd +norec",
];

fn knot() -> Option<(Lab, u16)> {
    if !are_here(&["knotd", "dig"]) {
        return None;
    }
    let mut lab = Lab::new();
    let port = lab.knot(&[
        ("types.test.", ZONE, None),
        ("nsec.test.", SIGNED, Some("nsec")),
        ("nsec3.test.", SIGNED, Some("nsec3")),
    ]);
    // Zones are loaded and signed behind the listeners' start.
    let began = Instant::now();
    for zone in ["types.test", "nsec.test", "nsec3.test"] {
        while !answer("dig", port, &format!("{zone} SOA +short +tries=1 +time=1"))
            .out
            .contains("7200")
        {
            assert!(began.elapsed() < PATIENCE, "no {zone}: {}", lab.text("knot.log"));
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    Some((lab, port))
}

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

#[test]
fn short_answers_are_digs_for_every_type_and_way_of_asking() {
    let Some((_lab, port)) = knot() else { return };
    let mut answers = 0;
    for line in LINES.iter().filter(|line| !line.contains("+noall")) {
        // The words for all questions must stand first.
        let line = format!("+short {line}");
        let (ours, theirs) = (query(port, &line), answer("dig", port, &line));
        assert_eq!(ours.out, theirs.out, "{line}\n{}", ours.err);
        answers += usize::from(!ours.out.is_empty());
    }
    assert!(answers > 50, "only {answers} lines have an answer");
}

/// Lines that every run has its own of: version, ids, times.
fn without_chance(text: &str) -> Vec<String> {
    let is_kept = |line: &&str| {
        !line.contains("<<>>")
            && !["; (", ";; global options", ";; Query time", ";; WHEN", "; COOKIE"]
                .iter()
                .any(|start| line.starts_with(start))
    };
    let id = regex::Regex::new(r", id: \d+$").unwrap();
    text.lines().filter(is_kept).map(|line| id.replace(line, ", id: N").into_owned()).collect()
}

#[test]
fn whole_replies_are_digs() {
    let Some((_lab, port)) = knot() else { return };
    for line in LINES {
        // Without a cookie, which we do not send.
        let (ours, theirs) = (query(port, line), answer("dig", port, &format!("+nocookie {line}")));
        assert_eq!(without_chance(&ours.out), without_chance(&theirs.out), "{line}\n{}", ours.err);
    }
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

/// A server that sends `replies` made of each query.
fn hostile(replies: impl Fn(&[u8]) -> Vec<Vec<u8>> + Send + 'static) -> u16 {
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
fn empty_reply(query: &[u8]) -> Vec<u8> {
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
