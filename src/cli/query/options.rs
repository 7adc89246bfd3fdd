//! The options of `nodens query`: dig's, with one dash and with a plus.
//!
//! Owns both tables (help, manual and completions come from them) and how a word becomes a setting. What
//! can be set, and within which bounds, is [`super::settings`]'s.

use super::settings::{Authority, Edns, Family, Method, SIZE, Settings, Shown, TIME, TRIES, Way};
use crate::net::doh;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// An option with one dash.
pub(super) struct Dash {
    /// The letter.
    pub(super) letter: &'static str,
    /// What its value is called; `None` for one without.
    pub(super) value: Option<&'static str>,
    /// What it does.
    pub(super) help: &'static str,
}

const fn dash(letter: &'static str, value: Option<&'static str>, help: &'static str) -> Dash {
    Dash { letter, value, help }
}

/// The options with one dash, in the order of the help text.
pub(super) static DASHES: &[Dash] = &[
    dash("p", Some("PORT"), "The server's port; 53, 853 or 443 by the transport"),
    dash("t", Some("TYPE"), "The type, where it could be taken for a name"),
    dash("c", Some("CLASS"), "The class, where it could be taken for a name"),
    dash("q", Some("NAME"), "The name, where it could be taken for something else"),
    dash("x", Some("ADDRESS"), "The name of an address: its PTR record"),
    dash("4", None, "Ask over IPv4 alone"),
    dash("6", None, "Ask over IPv6 alone"),
    dash("b", Some("ADDRESS"), "Ask from this address, and #PORT behind it"),
    dash("u", None, "Show times in microseconds"),
    dash("o", Some("FORMAT"), "How to tell it: text, or json for one object a question"),
];

/// Sets what a letter says; values of `q`, `x`, `t`, `c` and `o` are the line's own.
pub(super) fn set_dash(settings: &mut Settings, letter: &str, value: &str) -> Result<(), String> {
    match letter {
        "4" => settings.family = Some(Family::V4),
        "6" => settings.family = Some(Family::V6),
        "u" => settings.shown.microseconds = true,
        "p" => {
            let port = number(value, (1, 65535)).map_err(|why| format!("-p: {why}"))?;
            settings.port = Some(port as u16);
        }
        _ => {
            let (address, port) = value.split_once('#').unwrap_or((value, "0"));
            let address = address.parse().map_err(|_| format!("-b: '{address}' is no address"))?;
            let port = number(port, (0, 65535)).map_err(|why| format!("-b: {why}"))?;
            settings.source = Some(SocketAddr::new(address, port as u16));
        }
    }
    Ok(())
}

/// How an option was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Given<'w> {
    /// With `no` before it.
    Off,
    /// Itself, perhaps with a value.
    On(Option<&'w str>),
}

impl<'w> Given<'w> {
    fn is_on(self) -> bool {
        self != Given::Off
    }

    fn value(self) -> Option<&'w str> {
        match self {
            Given::Off => None,
            Given::On(value) => value,
        }
    }
}

/// Whether an option takes a value, and what that is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Value {
    /// None.
    None,
    /// It may stand.
    May(&'static str),
    /// It must.
    Needed(&'static str),
}

/// An option with a plus.
pub(super) struct Plus {
    /// The name in help texts.
    pub(super) name: &'static str,
    /// dig's other names for it.
    pub(super) aliases: &'static [&'static str],
    /// Its value.
    pub(super) value: Value,
    /// Whether `no` may stand before it.
    pub(super) can_be_off: bool,
    /// What it does.
    pub(super) help: &'static str,
    /// Does it. The error is a line without the name.
    pub(super) set: fn(&mut Settings, Given<'_>) -> Result<(), String>,
}

/// A switch.
const fn switch(
    name: &'static str,
    aliases: &'static [&'static str],
    help: &'static str,
    set: fn(&mut Settings, Given<'_>) -> Result<(), String>,
) -> Plus {
    Plus { name, aliases, value: Value::None, can_be_off: true, help, set }
}

/// An option whose value must stand.
const fn setting(
    name: &'static str,
    aliases: &'static [&'static str],
    value: &'static str,
    help: &'static str,
    set: fn(&mut Settings, Given<'_>) -> Result<(), String>,
) -> Plus {
    Plus { name, aliases, value: Value::Needed(value), can_be_off: false, help, set }
}

/// An option whose value may stand.
const fn perhaps(
    name: &'static str,
    value: &'static str,
    help: &'static str,
    set: fn(&mut Settings, Given<'_>) -> Result<(), String>,
) -> Plus {
    Plus { name, aliases: &[], value: Value::May(value), can_be_off: true, help, set }
}

/// The options with a plus, in the order of the help text.
#[rustfmt::skip] // A table.
pub(super) static PLUSES: &[Plus] = &[
    switch("short", &[], "The answer's data alone, a record a line", |s, given| {
        match given.is_on() {
            true => s.shown = Shown { is_short: true, answer: true, ..shown_as(&s.shown, &Shown::NOTHING) },
            false => s.shown.is_short = false,
        }
        Ok(())
    }),
    switch("tcp", &["vc"], "Ask over TCP", |s, given| take(s, given, Way::Tcp)),
    switch("tls", &[], "Ask over TLS (DoT)", |s, given| take(s, given, Way::Tls)),
    perhaps("https", "PATH", "Ask over HTTPS (DoH) by POST; /dns-query", |s, given| {
        https(s, given, Method::Post)
    }),
    perhaps("https-post", "PATH", "The same", |s, given| https(s, given, Method::Post)),
    perhaps("https-get", "PATH", "Ask over HTTPS (DoH) by GET", |s, given| https(s, given, Method::Get)),
    switch("quic", &[], "Ask over QUIC (DoQ)", |s, given| take(s, given, Way::Quic)),
    setting("tls-hostname", &[], "NAME", "The name that the server's certificate must have", |s, given| {
        s.tls_name = given.value().map(str::to_owned);
        Ok(())
    }),
    perhaps("tls-ca", "FILE", "Verify the certificate, by the authorities of a file or of the system", |s, given| {
        s.authority = given.is_on().then(|| match given.value() {
            Some(path) => Authority::File(path.into()),
            None => Authority::System,
        });
        Ok(())
    }),
    switch("dnssec", &["do"], "Set DO: ask for signatures", |s, given| {
        match (given.is_on(), &mut s.edns) {
            (is_on, Some(edns)) => edns.dnssec = is_on,
            (true, none) => *none = Some(Edns { dnssec: true, ..Edns::default() }),
            (false, None) => {}
        }
        Ok(())
    }),
    switch("cdflag", &["cd"], "Set CD: do not validate", |s, given| {
        s.checking_disabled = given.is_on();
        Ok(())
    }),
    switch("adflag", &["ad"], "Set AD: tell whether it is validated; set by default", |s, given| {
        s.authentic = given.is_on();
        Ok(())
    }),
    switch("recurse", &["rdflag", "rd"], "Set RD: ask others too; set by default", |s, given| {
        s.recursion = given.is_on();
        Ok(())
    }),
    perhaps("edns", "VERSION", "Send EDNS; version 0 by default", |s, given| {
        let version = given.value().map_or(Ok(0), |text| number(text, (0, 255)))? as u8;
        let kept = s.edns.take().unwrap_or_default();
        s.edns = given.is_on().then_some(Edns { version, ..kept });
        Ok(())
    }),
    setting("bufsize", &[], "N", "The greatest datagram that is taken, octets; 1232", |s, given| {
        let size = number(given.value().unwrap_or_default(), (SIZE.1, SIZE.2))?;
        edns(s).size = size as u16;
        Ok(())
    }),
    switch("nsid", &[], "Ask who the server is", |s, given| {
        if given.is_on() || s.edns.is_some() {
            edns(s).nsid = given.is_on();
        }
        Ok(())
    }),
    Plus { name: "subnet", aliases: &["client"], value: Value::Needed("ADDRESS/LENGTH"), can_be_off: true,
        help: "Send a client subnet", set: |s, given| {
        match given.value() {
            Some(text) => edns(s).subnet = Some(subnet(text)?),
            None => if let Some(edns) = &mut s.edns { edns.subnet = None },
        }
        Ok(())
    } },
    switch("ignore", &[], "Take a truncated reply, do not ask again over TCP", |s, given| {
        s.takes_truncated = given.is_on();
        Ok(())
    }),
    setting("time", &["timeout"], "N", "Seconds that a try may take; 5", |s, given| {
        s.time = Duration::from_secs(number(given.value().unwrap_or_default(), (TIME.1, TIME.2))?);
        Ok(())
    }),
    setting("tries", &[], "N", "How often every server is asked; 3", |s, given| {
        s.tries = number(given.value().unwrap_or_default(), (TRIES.1, TRIES.2))? as u32;
        Ok(())
    }),
    setting("retry", &[], "N", "One less than tries", |s, given| {
        s.tries = 1 + number(given.value().unwrap_or_default(), (TRIES.1 - 1, TRIES.2 - 1))? as u32;
        Ok(())
    }),
    switch("search", &[], "Put the search list of resolv.conf behind the name", |s, given| {
        s.searches = given.is_on();
        Ok(())
    }),
    setting("ndots", &[], "N", "The dots that make a name be tried as it is first", |s, given| {
        s.ndots = Some(number(given.value().unwrap_or_default(), (0, 15))? as usize);
        s.searches = true;
        Ok(())
    }),
    switch("all", &[], "All parts of the reply, or none of them", |s, given| {
        let all = if given.is_on() { &Shown::ALL } else { &Shown::NOTHING };
        s.shown = shown_as(&s.shown, all);
        s.shown.is_short = false;
        Ok(())
    }),
    switch("cmd", &[], "The first line", |s, given| { s.shown.command = given.is_on(); Ok(()) }),
    switch("comments", &[], "Header and headings", |s, given| { s.shown.comments = given.is_on(); Ok(()) }),
    switch("question", &[], "The question section", |s, given| { s.shown.question = given.is_on(); Ok(()) }),
    switch("answer", &[], "The answer section", |s, given| { s.shown.answer = given.is_on(); Ok(()) }),
    switch("authority", &[], "The authority section", |s, given| { s.shown.authority = given.is_on(); Ok(()) }),
    switch("additional", &[], "The additional section", |s, given| { s.shown.additional = given.is_on(); Ok(()) }),
    switch("stats", &[], "Time, server and size", |s, given| { s.shown.statistics = given.is_on(); Ok(()) }),
    switch("ttlid", &[], "TTLs of records", |s, given| { s.shown.ttl = given.is_on(); Ok(()) }),
    switch("class", &[], "Classes of records", |s, given| { s.shown.class = given.is_on(); Ok(()) }),
];

/// The parts of `parts`, and what of `now` is no part.
fn shown_as(now: &Shown, parts: &Shown) -> Shown {
    let Shown { ttl, class, microseconds, .. } = *now;
    Shown { ttl, class, microseconds, ..parts.clone() }
}

fn take(settings: &mut Settings, given: Given<'_>, way: Way) -> Result<(), String> {
    settings.has_way = true;
    settings.way = match given.is_on() {
        true => way,
        false => Way::Udp,
    };
    Ok(())
}

fn https(settings: &mut Settings, given: Given<'_>, method: Method) -> Result<(), String> {
    let path = given.value().unwrap_or(doh::PATH);
    if !path.starts_with('/') || !path.bytes().all(|octet| octet.is_ascii_graphic()) {
        return Err(format!("'{path}' is no path: +https={}", doh::PATH));
    }
    take(settings, given, Way::Https(method, path.to_owned()))
}

fn edns(settings: &mut Settings) -> &mut Edns {
    settings.edns.get_or_insert_with(Edns::default)
}

fn subnet(text: &str) -> Result<(IpAddr, u8), String> {
    let wrong = || format!("'{text}' is no address with a prefix length");
    if text == "0" {
        return Ok((IpAddr::from([0, 0, 0, 0]), 0));
    }
    let (address, length) = text.split_once('/').map_or((text, None), |(a, l)| (a, Some(l)));
    let address: IpAddr = address.parse().map_err(|_| wrong())?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let length = length.map_or(Ok(most), |text| text.parse().map_err(|_| wrong()))?;
    if length > most {
        return Err(wrong());
    }
    Ok((address, length))
}

fn number(text: &str, (least, most): (u64, u64)) -> Result<u64, String> {
    let number = text.parse().ok().filter(|number| (least..=most).contains(number));
    number.ok_or_else(|| format!("'{text}' is not from {least} to {most}"))
}
