//! The same lines to dig and to `nodens query`, at a Knot DNS with records of every type.

use super::peers::{Lab, PATIENCE, are_here};
use super::{answer, query};
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

pub(crate) fn knot() -> Option<(Lab, u16)> {
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
