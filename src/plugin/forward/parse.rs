//! Reads the `forward` directives of a block (docs/plugins/forward.md).
//!
//! Owns the syntax and the error texts. Files come through the surroundings.

use super::options::Options;
use super::policy::{MOST_UPSTREAMS, Policy};
use super::sources::{self, Source};
use super::target::{Target, To, resolver, scheme_of, targets};
use super::tls::{DohMethod, TlsFiles, TlsSettings};
use super::{Upstream, Upstreams};
use crate::corefile::{
    CorefileError, Dispenser, Surroundings, file_error_text, format_duration, normalise_zone,
    parse_duration, parse_integer, parse_unsigned,
};
use crate::dns::{Name, Rcode};
use crate::plugin::{Journal, Level};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// One `forward` line with its block.
#[derive(Debug)]
pub(super) struct Stanza {
    /// FROM.
    pub(super) from: Name,
    /// TO and the options.
    pub(super) upstreams: Upstreams,
    /// Where the upstreams come from.
    pub(super) sources: Vec<Source>,
}

/// The shortest pause between two health probes; CoreDNS probes without pause at `0s`.
const LEAST_INTERVAL: Duration = Duration::from_millis(100);

/// All stanzas of the block, in file order.
pub(super) fn stanzas(
    dispenser: &mut Dispenser<'_>,
    surroundings: &dyn Surroundings,
    journal: &dyn Journal,
) -> Result<Vec<Stanza>, CorefileError> {
    let mut stanzas = Vec::new();
    while dispenser.next() {
        stanzas.push(stanza(dispenser, surroundings, journal)?);
    }
    for stanza in &stanzas {
        let count = stanza.upstreams.all.len();
        if count > MOST_UPSTREAMS {
            return Err(
                dispenser.plain_err(format!("more than {MOST_UPSTREAMS} TOs configured: {count}"))
            );
        }
    }
    Ok(stanzas)
}

fn stanza(
    dispenser: &mut Dispenser<'_>,
    surroundings: &dyn Surroundings,
    journal: &dyn Journal,
) -> Result<Stanza, CorefileError> {
    if !dispenser.next_arg() {
        return Err(dispenser.arg_err());
    }
    let written = dispenser.val();
    let mut zones = normalise_zone(written).into_iter();
    let Some(from) = zones.next() else {
        return Err(dispenser.plain_err(format!("unable to normalize '{written}'")));
    };
    if zones.next().is_some() {
        journal.line(
            Level::Warning,
            format_args!(
                "plugin/forward: Unsupported CIDR notation: '{written}' expands to multiple zones. \
                 Using only '{from}'."
            ),
        );
    }
    let words = dispenser.remaining_args();
    if words.is_empty() {
        return Err(dispenser.arg_err());
    }
    let mut ignored = Vec::new();
    let targets =
        targets(&words, surroundings, &mut ignored).map_err(|error| dispenser.plain_err(error))?;
    for line in ignored {
        journal.line(Level::Warning, format_args!("plugin/forward: {line}"));
    }
    let mut draft = Draft::default();
    while dispenser.next_block() {
        draft.option(dispenser, surroundings)?;
    }
    let (upstreams, sources) =
        draft.finish(targets, surroundings).map_err(|error| dispenser.plain_err(error))?;
    if upstreams.all.is_empty() {
        journal.line(
            Level::Warning,
            format_args!(
                "plugin/forward: no upstreams: queries below '{from}' fail until a nameserver line \
                 of {} is an IP address",
                words.join(" ")
            ),
        );
    }
    Ok(Stanza { from, upstreams, sources })
}

/// A directive's block while it is read.
#[derive(Default)]
struct Draft {
    options: Options,
    files: TlsFiles,
    server_name: Option<String>,
    method: DohMethod,
    /// Who is asked for host names; the system's own when there are none.
    resolvers: Vec<SocketAddr>,
}

impl Draft {
    /// The option at the current token.
    fn option(
        &mut self,
        dispenser: &mut Dispenser<'_>,
        surroundings: &dyn Surroundings,
    ) -> Result<(), CorefileError> {
        let options = &mut self.options;
        match dispenser.val() {
            "except" => {
                let names = some_arguments(dispenser)?;
                options.except.extend(names.into_iter().flat_map(normalise_zone));
            }
            "force_tcp" => {
                no_argument(dispenser)?;
                options.force_tcp = true;
            }
            "prefer_udp" => {
                no_argument(dispenser)?;
                options.prefer_udp = true;
            }
            "failfast_all_unhealthy_upstreams" => {
                if !dispenser.remaining_args().is_empty() {
                    return Err(dispenser.arg_err());
                }
                options.failfast = true;
            }
            "next_on_nodata" => {
                no_argument(dispenser)?;
                options.next_on_nodata = true;
            }
            "max_fails" => options.max_fails = number(dispenser)?,
            "max_connect_attempts" => options.max_connect_attempts = number(dispenser)?,
            "max_concurrent" => {
                options.max_concurrent = count(dispenser, "max_concurrent")?;
            }
            "max_idle_conns" => {
                let most = count(dispenser, "max_idle_conns")?;
                options.keeping.max_idle = usize::try_from(most).unwrap_or(usize::MAX);
            }
            "expire" => options.keeping.expire = duration(dispenser, "expire")?,
            "max_age" => {
                let age = duration(dispenser, "max_age")?;
                options.keeping.max_age = Some(age).filter(|age| !age.is_zero());
            }
            "read_timeout" => {
                let limit = duration(dispenser, "read_timeout")?;
                if limit.is_zero() {
                    return Err(dispenser.plain_err("read_timeout must be positive: 0s"));
                }
                options.read_timeout = limit;
            }
            "source_address" => {
                let text = argument(dispenser)?;
                let source: IpAddr = text
                    .parse()
                    .map_err(|_| dispenser.err(format!("invalid IP address: {text}")))?;
                options.keeping.source = Some(source);
            }
            "resolver" => {
                for word in some_arguments(dispenser)? {
                    let server = resolver(word).ok_or_else(|| {
                        dispenser.plain_err(format!(
                            "resolver must be an IP address or IP:port: {word:?}"
                        ))
                    })?;
                    self.resolvers.push(server);
                }
            }
            "health_check" => self.health_check(dispenser)?,
            "tls" => {
                let paths = dispenser.remaining_args();
                if paths.len() > 3 {
                    return Err(dispenser.arg_err());
                }
                self.files = TlsFiles::read(&paths, |path| {
                    surroundings
                        .read(Path::new(path))
                        .map_err(|error| file_error_text(Path::new(path), &error))
                })
                .map_err(|error| dispenser.plain_err(error))?;
            }
            "tls_servername" => self.server_name = Some(argument(dispenser)?.to_owned()),
            "doh_method" => {
                self.method = match argument(dispenser)? {
                    "GET" => DohMethod::Get,
                    "POST" => DohMethod::Post,
                    _ => {
                        return Err(dispenser.plain_err("doh_method must be either POST or GET"));
                    }
                }
            }
            "policy" => {
                let word = argument(dispenser)?;
                options.policy = Policy::from_word(word)
                    .ok_or_else(|| dispenser.err(format!("unknown policy '{word}'")))?;
            }
            "next" => {
                for word in some_arguments(dispenser)? {
                    options.next.push(rcode(dispenser, word)?);
                }
            }
            "failover" => {
                for word in some_arguments(dispenser)? {
                    match rcode(dispenser, word)? {
                        Rcode::NOERROR => {
                            return Err(dispenser.plain_err("NoError cannot be used in failover"));
                        }
                        rcode => options.failover.push(rcode),
                    }
                }
            }
            unknown => return Err(dispenser.err(format!("unknown property '{unknown}'"))),
        }
        Ok(())
    }

    fn health_check(&mut self, dispenser: &mut Dispenser<'_>) -> Result<(), CorefileError> {
        let text = argument(dispenser)?;
        let nanoseconds = parse_duration(text).map_err(|error| dispenser.plain_err(error))?;
        let interval = u64::try_from(nanoseconds).map_err(|_| {
            dispenser.plain_err(format!("health_check can't be negative: {nanoseconds}"))
        })?;
        let probe = &mut self.options.probe;
        probe.interval = Duration::from_nanos(interval).max(LEAST_INTERVAL);
        while dispenser.next_arg() {
            match dispenser.val() {
                "no_rec" => probe.recursion = false,
                "domain" => {
                    let domain = argument(dispenser)?;
                    probe.domain = domain.parse().map_err(|_| {
                        dispenser.plain_err(format!("health_check: invalid domain name {domain}"))
                    })?;
                }
                unknown => {
                    return Err(
                        dispenser.plain_err(format!("health_check: unknown option {unknown}"))
                    );
                }
            }
        }
        Ok(())
    }

    /// Joins the targets with what the block says about TLS, the addresses of host names found.
    fn finish(
        self,
        targets: Vec<To>,
        surroundings: &dyn Surroundings,
    ) -> Result<(Upstreams, Vec<Source>), String> {
        let keeping = &self.options.keeping;
        if let Some(age) = keeping.max_age.filter(|age| *age < keeping.expire) {
            return Err(format!(
                "max_age ({}) must not be less than expire ({})",
                format_duration(age),
                format_duration(keeping.expire)
            ));
        }
        let files = Arc::new(self.files);
        let upstream = |Target { mut upstream, over, server_name, host }| {
            if let Some(over) = over {
                if let (Some(forward), Some(own)) = (&self.server_name, &server_name) {
                    return Err(format!(
                        "both forward ('{forward}') and proxy level ('{own}') TLS servernames are \
                         set for upstream proxy '{}://{}'",
                        scheme_of(over),
                        upstream.text
                    ));
                }
                let server_name = server_name.or_else(|| self.server_name.clone()).or(host);
                upstream.tls = Some(Arc::new(TlsSettings {
                    over,
                    server_name,
                    method: self.method,
                    files: files.clone(),
                }));
            }
            Ok::<Upstream, String>(upstream)
        };
        let mut sources = Vec::with_capacity(targets.len());
        for to in targets {
            match to {
                To::Unsupported(why) => return Err(why),
                To::Address(target) => sources.push(Source::Address(upstream(target)?)),
                To::Host(host) => {
                    for target in host.resolve(surroundings, &self.resolvers)? {
                        sources.push(Source::Address(upstream(target)?));
                    }
                }
                To::File(path, targets) => {
                    let upstreams = targets.into_iter().map(upstream).collect::<Result<_, _>>()?;
                    sources.push(Source::File(path, upstreams));
                }
            }
        }
        let all = sources::distinct(&sources);
        Ok((Upstreams { all, options: self.options, attached: OnceLock::new() }, sources))
    }
}

fn no_argument(dispenser: &mut Dispenser<'_>) -> Result<(), CorefileError> {
    if dispenser.next_arg() { Err(dispenser.arg_err()) } else { Ok(()) }
}

fn argument<'t>(dispenser: &mut Dispenser<'t>) -> Result<&'t str, CorefileError> {
    if dispenser.next_arg() { Ok(dispenser.val()) } else { Err(dispenser.arg_err()) }
}

fn some_arguments<'t>(dispenser: &mut Dispenser<'t>) -> Result<Vec<&'t str>, CorefileError> {
    let words = dispenser.remaining_args();
    if words.is_empty() { Err(dispenser.arg_err()) } else { Ok(words) }
}

fn number(dispenser: &mut Dispenser<'_>) -> Result<u32, CorefileError> {
    let text = argument(dispenser)?;
    let number = parse_unsigned(text, 32).map_err(|error| dispenser.plain_err(error))?;
    Ok(u32::try_from(number).unwrap_or(u32::MAX))
}

fn count(dispenser: &mut Dispenser<'_>, option: &str) -> Result<u64, CorefileError> {
    let text = argument(dispenser)?;
    let number = parse_integer(text).map_err(|error| dispenser.plain_err(error))?;
    u64::try_from(number)
        .map_err(|_| dispenser.plain_err(format!("{option} can't be negative: {number}")))
}

fn duration(dispenser: &mut Dispenser<'_>, option: &str) -> Result<Duration, CorefileError> {
    let text = argument(dispenser)?;
    let nanoseconds = parse_duration(text).map_err(|error| dispenser.plain_err(error))?;
    u64::try_from(nanoseconds).map(Duration::from_nanos).map_err(|_| {
        let length = format_duration(Duration::from_nanos(nanoseconds.unsigned_abs()));
        let rule = if option == "read_timeout" { "must be positive" } else { "can't be negative" };
        dispenser.plain_err(format!("{option} {rule}: -{length}"))
    })
}

/// The rcode that `word` names in any case.
fn rcode(dispenser: &Dispenser<'_>, word: &str) -> Result<Rcode, CorefileError> {
    Rcode::named(&word.to_uppercase())
        .ok_or_else(|| dispenser.plain_err(format!("{word} is not a valid rcode")))
}
