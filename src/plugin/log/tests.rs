//! The lines of `log`, and the grammar.

use super::*;
use crate::corefile::MemorySurroundings;
use crate::dns::{Class, Rcode, Received, RecordType, Transport};
use crate::plugin::testing::{Bench, always, query};

const SOA: &str = "authority: test. 60 IN SOA ns.test. hm.test. 7 3600 600 86400 60";

/// The lines that one query for `a.test. A` leaves under `directives`.
fn lines(directives: &str, rcode: Rcode, records: &[&str]) -> Vec<String> {
    let mut bench = Bench::new();
    let chain = bench.load(directives, &MemorySurroundings::default()).unwrap();
    bench.ask(&chain, query("a.test.", RecordType::A), always(rcode, records));
    bench.journal.take()
}

#[test]
fn the_common_format_is_the_default() {
    assert_eq!(
        lines("log", Rcode::NOERROR, &["a.test. 300 IN A 192.0.2.1"]),
        ["[INFO] 127.0.0.1:40212 - 0 \"A IN a.test. udp 24 false 512\" NOERROR qr,rd,ra 46 0s"]
    );
}

#[test]
fn a_failed_query_has_neither_rcode_nor_flags_nor_size() {
    let mut bench = Bench::new();
    let chain = bench.load("log", &MemorySurroundings::default()).unwrap();
    bench.client.transport = Transport::Tcp;
    bench.client.address = "[2001:db8::1]:7".parse().unwrap();
    bench.ask(&chain, query("A.Test.", RecordType(65280)), |_, response| {
        response.fail(Rcode::SERVFAIL, None);
    });
    assert_eq!(
        bench.journal.take(),
        ["[INFO] [2001:db8::1]:7 - 0 \"TYPE65280 IN a.test. tcp 24 false 65535\" - - 0 0s"]
    );
}

#[test]
fn a_format_may_name_fields_labels_and_unknown_words() {
    assert_eq!(
        lines("log . \"{combined} {{name} }{nosuch} {/meta/x} }{\"", Rcode(99), &[]),
        ["[INFO] 127.0.0.1:40212 - 0 \"A IN a.test. udp 24 false 512\" RCODE3 qr,rd,ra 24 0s \
          \"0\" {a.test. }{nosuch} - }{"]
        .map(|line| line.replace("RCODE3", "NXDOMAIN"))
    );
    assert_eq!(
        lines("log test \"{local} {>rflags}\"", Rcode::NOERROR, &[]),
        ["[INFO] 127.0.0.53 qr,rd,ra"]
    );
}

#[test]
fn a_reply_that_is_cut_has_its_whole_size_and_tc() {
    let addresses = vec!["a.test. 300 IN A 192.0.2.1"; 40];
    assert_eq!(
        lines("log . \"{>rflags} {rsize}\"", Rcode::NOERROR, &addresses),
        ["[INFO] qr,tc,rd,ra 904"]
    );
    assert_eq!(
        lines("log . \"{>rflags} {rsize}\"", Rcode::NOERROR, &addresses[..30]),
        ["[INFO] qr,rd,ra 684"]
    );
}

#[test]
fn every_flag_of_a_reply_has_its_word() {
    let mut bench = Bench::new();
    let chain = bench.load("log . {>rflags}", &MemorySurroundings::default()).unwrap();
    bench.ask(&chain, query("a.test.", RecordType::A), |query, response| {
        response.start(query, Rcode::NOERROR, 0, "whoami");
        response.wire[2..4].copy_from_slice(&0x87f0_u16.to_be_bytes());
    });
    assert_eq!(bench.journal.take(), ["[INFO] qr,aa,tc,rd,ra,z,ad,cd"]);
}

#[test]
fn an_expired_signature_is_an_error_to_a_client_that_wants_signatures() {
    let asked = |flags: &[u8]| {
        let mut wire = b"\0\0\x01\0\0\x01\0\0\0\0\0\x01\x01a\x04test\0\0\x01\0\x01".to_vec();
        wire.extend_from_slice(b"\0\0\x29\x02\0\0\0");
        wire.extend_from_slice(flags);
        wire.extend_from_slice(&[0, 0]);
        let Received::Query(query) = Query::receive(&wire) else { panic!("no query") };
        query.into_owned()
    };
    // It covers A, and expired in 1970.
    let signature = "a.test. 300 IN RRSIG 0001 08 02 0000012c 00000001 00000000 0001 00 ab";
    for (flags, said) in [([0x80, 0], "error"), ([0, 0], "success")] {
        let mut bench = Bench::new();
        let rule = "metadata\nlog . \"{/log/class}\"";
        let chain = bench.load(rule, &MemorySurroundings::new()).unwrap();
        let records = ["a.test. 300 IN A 192.0.2.1", signature];
        bench.ask(&chain, asked(&flags), always(Rcode::NOERROR, &records));
        assert_eq!(bench.journal.take(), [format!("[INFO] {said}")]);
    }
}

#[test]
fn types_and_classes_have_gos_names() {
    let mut bench = Bench::new();
    let chain = bench.load("log . \"{class} {type}\"", &MemorySurroundings::new()).unwrap();
    for (class, qtype, said) in [
        (Class::ANY, RecordType::ANY, "CLASS255 ANY"),
        (Class::NONE, RecordType(0), "NONE None"),
        (Class::CH, RecordType(128), "CH NXNAME"),
        (Class(0), RecordType(65535), "CLASS0 Reserved"),
    ] {
        let asked = Query::new(&"a.test.".parse().unwrap(), qtype, class);
        bench.ask(&chain, asked, always(Rcode::NOERROR, &[]));
        assert_eq!(bench.journal.take(), [format!("[INFO] {said}")]);
    }
}

#[test]
fn a_single_word_is_a_name_never_a_format() {
    assert!(lines("log \"{remote}\"", Rcode::NOERROR, &[]).is_empty());
}

#[test]
fn the_first_rule_in_scope_decides_alone() {
    let rules = "log a.test {\n class error\n}\nlog . \"{name}\"";
    assert!(lines(rules, Rcode::NOERROR, &[]).is_empty());
    assert_eq!(lines("log b.test a.test \"{name}\"", Rcode::NOERROR, &[]).len(), 1);
    assert!(lines("log b.test c.test \"{name}\"", Rcode::NOERROR, &[]).is_empty());
}

#[test]
fn classes_select_responses() {
    let record = "a.test. 300 IN A 192.0.2.1";
    for (rcode, records, class) in [
        (Rcode::NOERROR, &[record][..], "success"),
        (Rcode::NOERROR, &["authority: test. 9 IN NS ns.test."], "success"),
        (Rcode::NOERROR, &[], "success"),
        (Rcode::NOERROR, &[SOA], "denial"),
        (Rcode::NXDOMAIN, &[SOA], "denial"),
        (Rcode::NXDOMAIN, &[], "error"),
        (Rcode::SERVFAIL, &[], "error"),
        (Rcode::REFUSED, &[], "error"),
    ] {
        for tried in ["success", "denial", "error", "all"] {
            let rule = format!("log . {{\n class {tried}\n}}");
            let wanted = usize::from(tried == class || tried == "all");
            assert_eq!(lines(&rule, rcode, records).len(), wanted, "{rcode} {records:?}");
        }
    }
}

#[test]
fn what_became_of_a_query_is_a_label() {
    let mut bench = Bench::new();
    let log = "metadata\nlog . \"{/log/class} {/log/type}\"";
    let chain = bench.load(log, &MemorySurroundings::default()).unwrap();
    for (rcode, records, said) in [
        (Rcode::NOERROR, &["a.test. 300 IN A 192.0.2.1"][..], "success NOERROR"),
        (Rcode::NOERROR, &["authority: test. 9 IN NS ns.test."], "success DELEGATION"),
        (Rcode::NOERROR, &[SOA], "denial NODATA"),
        (Rcode::NXDOMAIN, &[SOA], "denial NXDOMAIN"),
        (Rcode::SERVFAIL, &[], "error SERVERERROR"),
        (Rcode::REFUSED, &[], "error OTHERERROR"),
    ] {
        bench.ask(&chain, query("a.test.", RecordType::A), always(rcode, records));
        assert_eq!(bench.journal.take(), [format!("[INFO] {said}")]);
    }
    bench.ask(&chain, query("a.test.", RecordType::AXFR), always(Rcode::NOERROR, &[]));
    assert_eq!(bench.journal.take(), ["[INFO] error META"]);
    bench.ask(&chain, query("a.test.", RecordType::A), |_, response| {
        response.fail(Rcode::SERVFAIL, None);
    });
    assert_eq!(bench.journal.take(), ["[INFO] error SERVERERROR"]);
}

#[test]
fn mistakes_are_named_as_coredns_names_them() {
    for (directives, text) in [
        (
            "log {\n foo\n}",
            "plugin/log: Corefile:3 - Error during parsing: Wrong argument count or unexpected line ending after 'foo'",
        ),
        ("log {\n class foo\n}", "Corefile:3 - plugin/log: invalid Class: foo"),
        (
            "log {\n class\n}",
            "plugin/log: Corefile:3 - Error during parsing: Wrong argument count or unexpected line ending after 'class'",
        ),
    ] {
        let error = Bench::new().load_error(directives, &MemorySurroundings::default());
        assert_eq!(error, text);
    }
}
