//! What the records say, and the grammar.

use super::record::tests::shown;
use super::*;
use crate::corefile::MemorySurroundings;
use crate::dns::{Query, Rcode, Received, RecordType, Transport};
use crate::plugin::testing::{Bench, always, query};
use std::time::Duration;

const RECORD: &str = "a.test. 300 IN A 192.0.2.1";

/// The records that wait for the block's first endpoint.
fn records(bench: &Bench) -> Vec<String> {
    let Some(Service::Dnstap(tap)) = bench.services.first() else { panic!("no service") };
    let mut frames = Vec::new();
    tap.take(&mut frames);
    let mut rest = frames.as_slice();
    let mut records = Vec::new();
    while let Some((length, behind)) = rest.split_first_chunk::<4>() {
        let (record, behind) = behind.split_at(u32::from_be_bytes(*length) as usize);
        records.push(shown(record));
        rest = behind;
    }
    records
}

#[test]
fn a_query_and_its_response_are_recorded() {
    let mut bench = Bench::new();
    let text = "dnstap /run/tap.sock {\n identity node-1\n version v2\n}";
    let chain = bench.load(text, &MemorySurroundings::new()).unwrap();
    let outcome =
        bench.ask(&chain, query("a.test.", RecordType::A), always(Rcode::NOERROR, &[RECORD]));
    // It hands the response on in a message of its own, and so counts as its writer.
    assert_eq!(outcome.response.writer, "dnstap");
    assert_eq!(
        records(&bench),
        [
            "node-1 v2  | 1=5 2=1 3=1 4=7f000001 6=40212 8=1700000000 9=0",
            "node-1 v2  | 1=6 2=1 3=1 4=7f000001 6=40212 8=1700000000 9=0 12=1700000000 13=0",
        ]
    );
    assert!(bench.journal.take().is_empty());
}

#[test]
fn a_full_record_holds_the_message_with_the_clients_id() {
    let mut bench = Bench::new();
    let text = "dnstap /run/tap.sock full {\n identity n\n version v\n}";
    let chain = bench.load(text, &MemorySurroundings::new()).unwrap();
    let mut asked = query("a.test.", RecordType::A);
    asked.set_id(0x1234);
    bench.client.transport = Transport::Tcp;
    bench.ask(&chain, asked, always(Rcode::NXDOMAIN, &[]));
    let records = records(&bench);
    assert!(records[0].contains(" 3=2 "), "{records:?}");
    assert!(
        records[0].ends_with(" 10=123401000001000000000000016104746573740000010001"),
        "{records:?}"
    );
    assert!(records[1].contains(" 14=12348183"), "{records:?}");
}

#[test]
fn a_response_is_recorded_as_the_client_gets_it() {
    let mut bench = Bench::new();
    let text = "dnstap /run/tap.sock full {\n identity n\n version v\n}";
    let chain = bench.load(text, &MemorySurroundings::new()).unwrap();
    let asked = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\x01\x01a\x04test\0\0\x01\0\x01\
                  \0\0\x29\x02\0\0\0\x80\0\0\0";
    let Received::Query(asked) = Query::receive(asked) else { panic!("no query") };
    bench.ask(&chain, asked, always(Rcode::NOERROR, &[RECORD; 40]));
    let record = records(&bench).remove(1);
    // TC, as many of the records as fit, and the client's OPT record.
    assert!(record.contains(" 14=1234838000010"), "{record}");
    assert!(record.ends_with("0000290200000080000000"), "{record}");
}

#[test]
fn a_query_that_fails_has_no_response_record() {
    let mut bench = Bench::new();
    let chain = bench.load("dnstap /run/tap.sock", &MemorySurroundings::new()).unwrap();
    bench.ask(&chain, query("a.test.", RecordType::A), |_, response| {
        response.fail(Rcode::SERVFAIL, None);
    });
    assert_eq!(records(&bench).len(), 1);
}

#[test]
fn what_is_forwarded_is_recorded_for_each_try() {
    let mut bench = Bench::new();
    let text = "dnstap tcp://collector:6000 {\n identity n\n version v\n}\nforward . 192.0.2.53";
    let chain = bench.load(text, &MemorySurroundings::new()).unwrap();
    bench.advance(Duration::from_millis(10));
    let outcome =
        bench.ask(&chain, query("a.test.", RecordType::A), always(Rcode::NOERROR, &[RECORD]));
    assert!(outcome.exchanges[0].keeps_tries);
    let records = records(&bench);
    assert_eq!(records.len(), 4, "{records:?}");
    assert_eq!(
        records[1],
        "n v  | 1=7 2=1 3=1 4=7f000001 5=c0000235 6=40212 7=53 8=1700000000 9=7000000"
    );
    assert_eq!(
        records[2],
        "n v  | 1=8 2=1 3=1 4=7f000001 5=c0000235 6=40212 7=53 8=1700000000 9=7000000 \
         12=1700000000 13=10000000"
    );
}

#[test]
fn extra_is_a_format_over_the_query() {
    let mut bench = Bench::new();
    let text = "dnstap s {\n identity n\n version v\n extra \"{name}/{type} {rcode} {/x/y}\"\n}";
    let chain = bench.load(text, &MemorySurroundings::new()).unwrap();
    bench.ask(&chain, query("a.test.", RecordType::A), always(Rcode::NOERROR, &[RECORD]));
    for record in records(&bench) {
        assert!(record.starts_with("n v a.test./A - - |"), "{record}");
    }
}

#[test]
fn directives_with_one_endpoint_share_it_and_keep_it_over_a_reload() {
    let mut bench = Bench::new();
    let text = "dnstap /run/a full\ndnstap /run/a\ndnstap unix:///run/b";
    bench.load(text, &MemorySurroundings::new()).unwrap();
    let taps = |bench: &Bench| -> Vec<Arc<Tap>> {
        let services = bench.services.iter();
        services
            .filter_map(|service| match service {
                Service::Dnstap(tap) => Some(tap.clone()),
                _ => None,
            })
            .collect()
    };
    let before = taps(&bench);
    assert_eq!(before.len(), 2);
    assert_eq!(before[1].endpoint, Endpoint::Unix("/run/b".to_owned()));
    bench.load("dnstap /run/a", &MemorySurroundings::new()).unwrap();
    assert!(Arc::ptr_eq(&taps(&bench)[0], &before[0]));
}

#[test]
fn endpoints_are_read_as_urls() {
    for (text, endpoint) in [
        ("dnstap /run/x", Endpoint::Unix("/run/x".to_owned())),
        ("dnstap tcp://[::1]:6000/path", Endpoint::Tcp("[::1]:6000".to_owned())),
        (
            "dnstap tls://a:1 {\n skipverify\n}",
            Endpoint::Tls { address: "a:1".to_owned(), is_verified: false },
        ),
    ] {
        let mut bench = Bench::new();
        bench.load(text, &MemorySurroundings::new()).unwrap();
        let Some(Service::Dnstap(tap)) = bench.services.first() else { panic!("no service") };
        assert_eq!(tap.endpoint, endpoint);
    }
}

#[test]
fn mistakes_are_named() {
    for (text, error) in [
        ("dnstap", "Wrong argument count or unexpected line ending after 'dnstap'"),
        (
            "dnstap tcp://127.0.0.1:abc",
            "Wrong argument count or unexpected line ending after 'tcp://127.0.0.1:abc'",
        ),
        (
            "dnstap a full x",
            "dnstap: invalid MultipleTcpWriteBuf \"x\": strconv.Atoi: parsing \"x\": invalid syntax",
        ),
        (
            "dnstap a full 0",
            "dnstap: MultipleTcpWriteBuf must be between 1 and 1024 (MiB units): 0",
        ),
        (
            "dnstap a full 1 4097",
            "dnstap: MultipleQueue must be between 1 and 4096 (x10k messages): 4097",
        ),
        (
            "dnstap a {\n identity\n}",
            "Wrong argument count or unexpected line ending after 'identity'",
        ),
    ] {
        let found = Bench::new().load_error(text, &MemorySurroundings::new());
        assert!(found.ends_with(error), "{found}");
    }
}
