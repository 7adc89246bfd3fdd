//! The directive's text: what is accepted, and the errors for what is not.

use crate::corefile::MemorySurroundings;
use crate::plugin::testing::Bench;

fn error_of(directive: &str) -> String {
    Bench::new().load_error(directive, &MemorySurroundings::default())
}

#[test]
fn every_spelling_that_coredns_takes_is_taken() {
    for directive in [
        "cache",
        "cache 30",
        "cache 3600 a.test b.test",
        "cache a.test",
        "cache 30s",
        "cache 0x10",
        "cache 30 0",
        "cache 99999999999999999999",
        "cache 30 a..b",
        "cache {\n success 0\n denial -5 10 0\n}",
        "cache 30 {\n success 9984 30 0 ignored\n}",
        "cache {\n prefetch 0\n}",
        "cache {\n prefetch 10 1m\n}",
        "cache {\n prefetch 10 0 90%\n}",
        "cache {\n serve_stale\n}",
        "cache {\n serve_stale 0\n}",
        "cache {\n serve_stale 1h IMMEDIATE\n}",
        "cache {\n serve_stale 1h verify 500ms\n}",
        "cache {\n serve_stale 1h verify 0 30s 5m\n}",
        "cache {\n serve_stale 1h immediate 30s 30s\n}",
        "cache {\n serve_stale 1h immediate 2147483647s\n}",
        "cache {\n servfail 5m\n}",
        "cache {\n disable success a. b.\n disable denial\n disable denial x.\n}",
        "cache {\n keepttl\n}",
        "cache {\n}",
    ] {
        let loaded = Bench::new().load(directive, &MemorySurroundings::default());
        assert!(loaded.is_ok(), "{directive}: {:?}", loaded.err());
    }
}

#[test]
fn mistakes_are_named_in_coredns_words_with_their_place() {
    let count = "Wrong argument count or unexpected line ending after";
    for (option, text) in [
        ("success a", "strconv.Atoi: parsing \"a\": invalid syntax"),
        ("denial 10 x", "strconv.Atoi: parsing \"x\": invalid syntax"),
        ("success 10 0", "cache TTL can not be zero or negative: 0"),
        ("denial 10 -3", "cache TTL can not be zero or negative: -3"),
        ("success 10 10 -1", "cache min TTL can not be negative: -1"),
        ("prefetch x", "strconv.Atoi: parsing \"x\": invalid syntax"),
        ("prefetch -1", "prefetch amount should be positive: -1"),
        ("prefetch 1 1", "time: missing unit in duration \"1\""),
        ("prefetch 1 1d", "time: unknown unit \"d\" in duration \"1d\""),
        ("prefetch 1 1m 20", "last character of percentage should be `%`, but is: '0'"),
        ("prefetch 1 1m 5%", "percentage should fall in range [10, 90]: 5"),
        ("prefetch 1 1m 95%", "percentage should fall in range [10, 90]: 95"),
        ("prefetch 1 1m x%", "strconv.Atoi: parsing \"x\": invalid syntax"),
        ("serve_stale off", "time: invalid duration \"off\""),
        ("serve_stale 20", "time: missing unit in duration \"20\""),
        ("serve_stale -1s", "invalid negative duration for serve_stale"),
        ("serve_stale 1h Sometimes", "invalid value for serve_stale refresh mode: sometimes"),
        (
            "serve_stale 1h immediate 1",
            "invalid serve_stale response TTL: time: missing unit in duration \"1\"",
        ),
        ("serve_stale 1h immediate -1s", "invalid negative response TTL for serve_stale"),
        (
            "serve_stale 1h verify 0 1500ms",
            "serve_stale response TTL must be a whole number of seconds",
        ),
        ("serve_stale 1h verify 0 600000h", "serve_stale response TTL exceeds the DNS TTL range"),
        (
            "serve_stale 1h verify 0 1s x",
            "invalid serve_stale failure recheck: time: invalid duration \"x\"",
        ),
        ("serve_stale 1h verify 0 1s -1s", "invalid negative failure recheck for serve_stale"),
        ("serve_stale 1h immediate 1s 6m", "serve_stale failure recheck cannot exceed 5 minutes"),
        (
            "serve_stale 1h verify 1",
            "invalid serve_stale verify timeout: time: missing unit in duration \"1\"",
        ),
        ("serve_stale 1h verify -1s", "invalid negative timeout for serve_stale verify"),
        ("servfail x", "time: invalid duration \"x\""),
        ("servfail -1s", "invalid negative ttl for servfail"),
        ("servfail 6m", "caching SERVFAIL responses over 5 minutes is not permitted"),
        ("disable all", "cache type for disable must be \"success\" or \"denial\""),
    ] {
        let expected = format!("Corefile:3 - plugin/cache: {text}");
        assert_eq!(error_of(&format!("cache {{\n {option}\n}}")), expected, "{option}");
    }
    for (option, last) in [
        ("success", "success"),
        ("denial", "denial"),
        ("prefetch", "prefetch"),
        ("prefetch 1 1m 20% 4", "4"),
        ("serve_stale 1h verify 1s 2s 3s 4s", "4s"),
        ("serve_stale -1s verify 1s", "1s"),
        ("serve_stale 1h sometimes 1s", "1s"),
        ("serve_stale 1h immediate 2s 3s 4s", "4s"),
        ("servfail", "servfail"),
        ("servfail 1s 2s", "2s"),
        ("disable", "disable"),
        ("keepttl yes", "yes"),
        ("foo", "foo"),
    ] {
        let expected = format!("plugin/cache: Corefile:3 - Error during parsing: {count} '{last}'");
        assert_eq!(error_of(&format!("cache {{\n {option}\n}}")), expected, "{option}");
    }
    assert_eq!(
        error_of("cache {\n serve_stale_policy prefer_positive\n}"),
        "plugin/cache: Corefile:3 - Error during parsing: serve_stale_policy is not there: leave the line \
         out, a SERVFAIL never hides an answer that may still be served"
    );
    assert_eq!(
        error_of("cache 0"),
        "Corefile:2 - plugin/cache: cache TTL can not be zero or negative: 0"
    );
    assert_eq!(
        error_of("cache\ncache"),
        "Corefile:3 - plugin/cache: this plugin can only be used once per Server Block"
    );
}
