//! RDATA of each type against what miekg/dns makes of the same text.

use super::super::record::TextRecord;
use data_encoding::HEXLOWER;

/// Made by miekg/dns of the same texts.
#[test]
fn types_are_read_as_miekgs_library_reads_them() {
    for (text, rdata) in [
        ("DNSKEY 257 3 8 AwEAAag=", "0101030803010001a8"),
        ("CDNSKEY 0 3 0 AA==", "0000030000"),
        ("KEY 256 3 8 AwEA", "01000308030100"),
        ("NSEC b.test. A MX TYPE65", "01620474657374000009400100000000000040"),
        ("NSEC3PARAM 1 0 1 -", "0100000100"),
        ("NSEC3PARAM 1 0 10 AABB", "0100000a02aabb"),
        (
            "NSEC3 1 1 12 aabb 2vptu5timamqttgl4luu9kg21e0aor3s A RRSIG",
            "0101000c02aabb1417f3df17b2b2adaef615257de4d2020b80ac6c7c0006400000000002",
        ),
        (
            "RRSIG A 8 2 300 20300101000000 20200101000000 1234 test. AAAA",
            "000108020000012c70dbd8805e0be10004d2047465737400000000",
        ),
        (
            "RRSIG A 8 2 300 1893456000 1577836800 1 . AAAA",
            "000108020000012c70dbd8805e0be100000100000000",
        ),
        ("PX 1 a.test. b.test.", "000101610474657374000162047465737400"),
        ("TALINK a.test. .", "016104746573740000"),
        ("NSAP-PTR a.test.", "0161047465737400"),
        ("X25 311061700956", "0c333131303631373030393536"),
        ("GPOS -1 2 3.5", "022d31013203332e35"),
        ("UINFO a", "0161"),
        ("RESINFO 65536 qnamemin", "05363535333608716e616d656d696e"),
        ("EUI48 00-00-5e-00-53-2a", "00005e00532a"),
        ("EUI64 00-00-5e-ef-10-00-00-2a", "00005eef1000002a"),
        ("NID 10 0014:4fff:ff20:ee64", "000a00144fffff20ee64"),
        ("L32 10 10.1.2.0", "000a0a010200"),
        ("LP 10 l.test.", "000a016c047465737400"),
        ("UID 7", "00000007"),
        ("ZONEMD 2018 1 1 abab", "000007e20101abab"),
        ("TA 1 8 2 aa", "00010802aa"),
        ("NIMLOC 12", "12"),
        ("DHCID AAAA", "000000"),
        ("CSYNC 66 3 A NS", "000000420003000160"),
        ("LOC 52 N 4 E 0", "001216138b28720080dbba0000989680"),
        (
            "LOC 52 22 23.000 N 4 53 32.000 E -2.00m 0.00m 10000m 10m",
            "000016138b3cf018810cbce0009895b8",
        ),
        ("LOC 52 59 59.9999 n 4 0 0.1 W 0", "001216138b5f607f7f24459c00989680"),
        ("LOC 90 S 180 E -100000m", "001216136cb02700a69fb20000000000"),
        ("LOC 052 07 08 S 004 E +5m", "0012161374d1062080dbba0000989874"),
        ("LOC 52 1 .5 S 4 E 5M", "0012161374d6a1ac80dbba0000989874"),
        ("LOC 52 N 4 E 42849672.95m", "001216138b28720080dbba00ffffffff"),
        ("LOC 52 N 4 E 10.555m", "001216138b28720080dbba0000989aa0"),
        ("LOC 52 N 4 E 0 15m 123.45m 0.05m", "001314508b28720080dbba0000989680"),
        ("LOC 52 N 4 E 0 90000000m .5 3m x", "009951328b28720080dbba0000989680"),
        ("APL 1:192.0.2.0/24", "00011803c00002"),
        ("APL !1:192.0.2.0/24 1:0.0.0.0/0", "00011883c0000200010000"),
        ("APL 2:2001:DB8::/32 01:192.0.2.0/024", "0002200420010db800011803c00002"),
        ("APL 2:::ffff:1.2.3.4/128", "0002801000000000000000000000ffff01020304"),
        ("APL", ""),
        ("SVCB 0 b.test.", "00000162047465737400"),
        ("SVCB 1 . alpn=h2,h3", "00010000010006026832026833"),
        ("SVCB 1 . alpn=h2\\,h3", "00010000010006026832026833"),
        ("SVCB 1 . alpn=\"a\\\\,b\\\\\\\\c\"", "0001000001000605612c625c63"),
        ("SVCB 1 . key65333=ab\\\\001c\\032", "000100ff35000861625c3030316320"),
        ("SVCB 1 . key65333=\"a\\;b c\" key65334", "000100ff350005613b622063ff360000"),
        (
            "HTTPS 1 . port=443 key9= mandatory=port,alpn ohttp alpn=h2 no-default-alpn",
            concat!(
                "0001000000000400010003",
                "00010003026832",
                "00020000",
                "0003000201bb",
                "00080000",
                "00090000"
            ),
        ),
        ("HTTPS 1 . ipv4hint=192.0.2.1,192.0.2.2", "00010000040008c0000201c0000202"),
        (
            "HTTPS 1 . ipv6hint=\"2001:db8::1\" ech=AAE= dohpath=/q{?dns}",
            concat!(
                "000100",
                "000500020001",
                "0006001020010db8000000000000000000000001",
                "000700082f717b3f646e737d"
            ),
        ),
        ("CERT PKIX 7 RSASHA256 AAAB", "0001000708000001"),
        ("CERT 254 7 8 AAAB", "00fe000708000001"),
        ("DS 1 RSASHA256 2 AB", "00010802ab"),
        ("CDS 1 ed25519 2 AB", "00010f02ab"),
        (
            "RRSIG A RSASHA256 2 300 1893456000 1577836800 1 . AAAA",
            "000108020000012c70dbd8805e0be100000100000000",
        ),
    ] {
        let record = TextRecord::parse(&format!("a. {text}")).unwrap();
        assert_eq!(HEXLOWER.encode(&record.rdata), rdata, "{text}");
    }
}

#[test]
fn what_is_no_rdata_of_its_type_is_refused() {
    for text in [
        "DNSKEY 257 3 8 A!",
        "SVCB 1 . =x",
        "SVCB 1 . what",
        "SVCB 1 . port",
        "SVCB 1 . port=65536",
        "SVCB 1 . port=1 port=2",
        "SVCB 1 . key3=x",
        "SVCB 1 . key09",
        "SVCB 1 . key65535",
        "SVCB 1 . \"alpn\"",
        "SVCB 1 . alpn=h2,,h3",
        "SVCB 1 . alpn=h2,",
        "SVCB 1 . alpn=a\\\\b",
        "SVCB 1 . ohttp=1",
        "SVCB 1 . ipv4hint=",
        "SVCB 1 . ipv4hint=::1",
        "SVCB 1 . ipv6hint=::ffff:192.0.2.1",
        "SVCB 1 . ech=A",
        "CERT FOO 7 8 AAAB",
        "CERT PKIX 7 FOO AAAB",
        "NSEC b.test. FOO",
        "NSEC3PARAM 1 0 1",
        "NSEC3PARAM 1 0 1 ABC",
        "NSEC3 1 0 1 - 1! A",
        "RRSIG A 8 2 300 20301301000000 20200101000000 1 . AAAA",
        "RRSIG A 8 2 300 20300230000000 20200101000000 1 . AAAA",
        "RRSIG A 8 2 300 203001010000 20200101000000 1 . AAAA",
        "EUI48 00-00-5e-00-53",
        "EUI48 0-0-5e-00-53-2a",
        "NID 10 14:4fff:ff20:ee64",
        "L32 10 ::",
        "TYPE65400 x",
        "LOC 52 N 4 E",
        "LOC 52 N 4 N 0",
        "LOC 52 60 N 4 E 0",
        "LOC 52 59 60 N 4 E 0",
        "LOC 52 1 -5 S 4 E 0",
        "LOC 52 1 5 5 S 4 E 0",
        "LOC 90 1 N 4 E 0",
        "LOC 90 N 181 E 0",
        "LOC -52 N 4 E 0",
        "LOC 52.5 N 4 E 0",
        "LOC 52 N 4 E mm",
        "LOC 52 N 4 E inf",
        "LOC 52 N 4 E 42849672.96m",
        "LOC 52 N 4 E -100000.01m",
        "LOC 52 N 4 E 0 1.555m",
        "LOC 52 N 4 E 0 1.m",
        "LOC 52 N 4 E 0 m",
        "LOC 52 N 4 E 0 90000001m",
        "LOC 52 N 4 E 0 99999999999999999999m",
        "APL 1:192.0.2.5/24",
        "APL 1:192.0.2.0/33",
        "APL 1:192.0.2.0",
        "APL 3:192.0.2.0/24",
        "APL 2:192.0.2.0/24",
        "APL 1:2001:db8::/32",
        "APL !!1:192.0.2.0/24",
    ] {
        assert!(TextRecord::parse(&format!("a. {text}")).is_err(), "{text}");
    }
}

#[test]
fn octets_that_are_no_rdata_of_their_type_are_refused() {
    for (text, is_read) in [
        ("A \\# 4 c0000201", true),
        ("A \\# 0", true),
        ("A \\# 3 c00002", false),
        ("A \\# 5 c000020101", false),
        ("AAAA \\# 4 c0000201", false),
        ("MX \\# 5 0001016100", true),
        ("MX \\# 4 00010161", false),
        ("TXT \\# 2 0261", false),
        ("TYPE65280 \\# 1 00", true),
    ] {
        assert_eq!(TextRecord::parse(&format!("a.test. 60 IN {text}")).is_ok(), is_read, "{text}");
    }
}

/// Made by miekg/dns of the same texts; what it does not read is none.
#[test]
fn bitmaps_in_octets_are_brought_into_their_form() {
    for (text, rdata) in [
        ("NSEC \\# 9 00 0006 400000000000", Some("00000140")),
        ("NSEC \\# 5 00 0002 0000", Some("00")),
        ("NSEC \\# 9 016100 0001 40 0101 40", Some("016100000140010140")),
        ("NSEC \\# 7 00 0000 0001 40", None),
        ("NSEC \\# 7 00 0101 40 0001 40", None),
        ("NSEC \\# 4 00 0002 40", None),
        ("NSEC \\# 2 00 00", None),
        ("NSEC \\# 2 01 61", None),
        (
            "NSEC \\# 36 00 0021 400000000000000000000000000000000000000000000000000000000000000001",
            None,
        ),
        ("CSYNC \\# 11 00000001 0003 0003 600000", Some("000000010003000160")),
        ("CSYNC \\# 2 0000", None),
        ("NSEC3 \\# 11 01 00 0001 00 01 ab 0002 4000", Some("010000010001ab000140")),
        ("NSEC3 \\# 4 01000001", None),
    ] {
        let record = format!("a.test. 60 IN {text}");
        let read = TextRecord::parse(&record).ok();
        let read = read.map(|record| HEXLOWER.encode(&record.rdata));
        assert_eq!(read.as_deref(), rdata, "{text}");
    }
}
