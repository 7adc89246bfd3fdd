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
    ] {
        let record = TextRecord::parse(&format!("a. {text}")).unwrap();
        assert_eq!(HEXLOWER.encode(&record.rdata), rdata, "{text}");
    }
}

#[test]
fn what_is_no_rdata_of_its_type_is_refused() {
    for text in [
        "DNSKEY 257 3 8 A!",
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
        "LOC 52 N 4 E 0m",
    ] {
        assert!(TextRecord::parse(&format!("a. {text}")).is_err(), "{text}");
    }
}
