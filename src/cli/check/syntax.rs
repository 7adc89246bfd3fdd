//! The syntax of every directive, as its page in docs/plugins shows it: what hints quote, and where a
//! misspelt word is looked for. No rule is made of it: the loading code judges what a hint proposes.
//! A test holds it equal to the pages.

/// Each directive and its syntax: the directive's own lines, and those of its block indented.
pub(super) static SYNTAX: &[(&str, &str)] = &[
    (
        "acl",
        r"acl [ZONES...] {
    ACTION [type TYPES...] [net NETWORKS...]
}
",
    ),
    ("any", "any\n"),
    (
        "bind",
        r"bind ADDRESS|INTERFACE... {
    except ADDRESS|INTERFACE...
}
",
    ),
    ("bufsize", "bufsize [SIZE]\n"),
    (
        "cache",
        r"cache [TTL] [ZONES...] {
    success CAPACITY [TTL] [MINTTL]
    denial CAPACITY [TTL] [MINTTL]
    prefetch AMOUNT [DURATION [PERCENTAGE%]]
    serve_stale [DURATION [immediate [TTL [RECHECK]] | verify [TIMEOUT [TTL [RECHECK]]]]]
    servfail DURATION
    disable success|denial [ZONES...]
    keepttl
}
",
    ),
    ("cancel", "cancel [TIMEOUT]\n"),
    ("chaos", "chaos [VERSION] [AUTHORS...]\n"),
    ("debug", "debug\n"),
    (
        "dns64",
        r"dns64 [PREFIX] {
    prefix PREFIX
    translate_all
    allow_ipv4
}
",
    ),
    (
        "dnstap",
        r"dnstap SOCKET [full] [WRITEBUFFER] [QUEUE] {
    skipverify
    identity IDENTITY
    version VERSION
    extra EXTRA
}
",
    ),
    (
        "errors",
        r"errors [stdout] {
    stacktrace
    consolidate DURATION REGEXP [LEVEL] [show_first]
}
",
    ),
    (
        "forward",
        r"forward FROM TO... {
    except NAMES...
    force_tcp
    prefer_udp
    policy random|round_robin|sequential
    max_fails INTEGER
    health_check DURATION [no_rec] [domain NAME]
    expire DURATION
    max_age DURATION
    max_idle_conns INTEGER
    read_timeout DURATION
    max_connect_attempts INTEGER
    max_concurrent INTEGER
    failfast_all_unhealthy_upstreams
    failover RCODE...
    next RCODE...
    next_on_nodata
    tls [CA] | [CERT KEY] | [CERT KEY CA]
    tls_servername NAME
    doh_method GET|POST
    source_address IP
    resolver IP[:PORT]...
}
",
    ),
    (
        "header",
        r"header {
    SELECTOR ACTION FLAGS...
}
",
    ),
    (
        "health",
        r"health [ADDRESS] {
    lameduck DURATION
    strict [PART...]
}
",
    ),
    (
        "hosts",
        r"hosts [FILE [ZONES...]] {
    [ADDRESS NAME...]
    ttl SECONDS
    no_reverse
    reload DURATION
    fallthrough [ZONES...]
}
",
    ),
    (
        "loadbalance",
        r"loadbalance [round_robin | weighted WEIGHTFILE] {
    reload DURATION
    prefer CIDR...
}
",
    ),
    (
        "local",
        r"local {
    localhost_prefix on|off
}
",
    ),
    (
        "log",
        r"log [NAMES...] [FORMAT] {
    class CLASSES...
}
",
    ),
    ("loop", "loop\n"),
    ("metadata", "metadata [ZONES...]\n"),
    ("minimal", "minimal\n"),
    ("multisocket", "multisocket [NUMBER]\n"),
    ("nsid", "nsid [DATA...]\n"),
    (
        "pprof",
        r"pprof [ADDRESS] {
    block [RATE]
}
",
    ),
    (
        "prometheus",
        r"prometheus [ADDRESS] {
    runtime_metrics
    tls FILE
}
",
    ),
    (
        "ready",
        r"ready [ADDRESS] {
    monitor until-ready|continuously
}
",
    ),
    ("reload", "reload [INTERVAL [JITTER]]\n"),
    (
        "rewrite",
        r"rewrite [continue|stop] FIELD ARGUMENTS...
rewrite [continue|stop] {
    FIELD ARGUMENTS...
}
",
    ),
    (
        "template",
        r"template CLASS TYPE [ZONES...] {
    match REGEX...
    answer RECORD...
    authority RECORD...
    additional RECORD...
    rcode CODE
    ederror CODE [REASON]
    fallthrough [ZONES...]
}
",
    ),
    (
        "timeouts",
        r"timeouts {
    read DURATION
    write DURATION
    idle DURATION
    maxtcpqueries NUMBER
}
",
    ),
    (
        "tls",
        r"tls CERT KEY [CA] {
    client_auth nocert|request|require|verify_if_given|require_and_verify
}
",
    ),
    (
        "trace",
        r"trace [ENDPOINT-TYPE] [ENDPOINT] {
    every AMOUNT
    service NAME
    client_server [BOOL]
    datadog_analytics_rate RATE
    zipkin_max_backlog_size SIZE
    zipkin_max_batch_size SIZE
    zipkin_max_batch_interval DURATION
}
",
    ),
    ("whoami", "whoami\n"),
];

/// Words that the pages describe and their syntax does not spell out.
const ALSO: &[(&str, &[&str])] = &[
    ("acl", &["allow", "block", "drop", "filter"]),
    ("rewrite", &["answer", "class", "cname", "edns0", "name", "rcode", "ttl", "type"]),
    ("template", &["upstream"]),
];

/// The words that stand first on the lines of a directive's block.
pub(super) fn options_of(directive: &str) -> Vec<&'static str> {
    let syntax = SYNTAX.iter().find(|(word, _)| *word == directive).map_or("", |(_, text)| text);
    let spelt = syntax.lines().filter_map(option_of);
    let also = ALSO.iter().find(|(word, _)| *word == directive).map_or(&[][..], |(_, words)| words);
    spelt.chain(also.iter().copied()).collect()
}

/// The line of the syntax that says what stands behind an option, or behind the directive itself.
pub(super) fn line_of(directive: &str, word: &str) -> Option<&'static str> {
    let (_, syntax) = SYNTAX.iter().find(|(known, _)| *known == directive)?;
    let is_it = |line: &&str| line.split_whitespace().next() == Some(word);
    let line = syntax.lines().find(is_it)?;
    Some(line.trim().trim_end_matches(" {"))
}

/// The first word of an indented line, where it is a word and stands for nothing else.
fn option_of(line: &'static str) -> Option<&'static str> {
    let word = line.strip_prefix("    ")?.split(' ').next()?;
    let is_word = word.starts_with(|letter: char| letter.is_ascii_lowercase());
    is_word.then_some(word)
}

/// The word of `words` that is nearest to a misspelt one, if one is near enough: one letter in three
/// may be wrong, in words that start alike one in two.
pub(super) fn nearest<'w>(
    misspelt: &str,
    words: impl IntoIterator<Item = &'w str>,
) -> Option<&'w str> {
    let misspelt = misspelt.to_ascii_lowercase();
    let letters = misspelt.chars().count();
    let near = |word: &'w str| {
        let starts_alike = word.get(..4).is_some_and(|start| misspelt.starts_with(start));
        let most = if starts_alike { letters / 2 } else { letters / 3 }.max(1);
        let distance = strsim::osa_distance(&misspelt, word);
        (distance <= most).then_some((distance, word))
    };
    words.into_iter().filter_map(near).min().map(|(_, word)| word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::TABLE;

    #[test]
    fn a_misspelt_word_has_a_nearest_one_or_none() {
        let near = |word| nearest(word, options_of("cache"));
        assert_eq!(near("sucess"), Some("success"));
        assert_eq!(near("servestale"), Some("serve_stale"));
        assert_eq!(near("DENIAL"), Some("denial"));
        assert_eq!(nearest("fallthru", options_of("hosts")), Some("fallthrough"));
        assert_eq!(near("policy"), None);
        assert_eq!(near(""), None);
    }

    #[test]
    fn it_is_what_the_pages_show() {
        for row in TABLE.iter().filter(|row| row.setup.is_ok()) {
            let path = format!("{}/docs/plugins/{}.md", env!("CARGO_MANIFEST_DIR"), row.word);
            let page = std::fs::read_to_string(path).unwrap();
            let (_, rest) = page.split_once("## Syntax\n").unwrap();
            let (_, rest) = rest.split_once("```text\n").unwrap();
            let (shown, _) = rest.split_once("```").unwrap();
            let known = SYNTAX.iter().find(|(word, _)| *word == row.word).map(|(_, text)| *text);
            assert_eq!(known, Some(shown), "SYNTAX is not what docs/plugins/{}.md shows", row.word);
        }
    }

    #[test]
    fn options_and_lines_are_found() {
        assert_eq!(options_of("bind"), ["except"]);
        assert_eq!(options_of("whoami"), [""; 0]);
        assert_eq!(line_of("cache", "servfail"), Some("servfail DURATION"));
        assert_eq!(line_of("forward", "forward"), Some("forward FROM TO..."));
        assert_eq!(line_of("cache", "nothing"), None);
    }
}
