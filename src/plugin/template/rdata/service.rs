//! Parameters of SVCB and HTTPS records, as hickory-proto reads them.
//!
//! Owns their order, which a text may have in any way and the wire has by key (RFC 9460 §2.1, §2.2), and
//! the names of keys that hickory-proto has by number alone.

/// The names of keys by their numbers (RFC 9460 §14.3.2, RFC 9461 §5, RFC 9540 §4).
const KEYS: [&str; 9] = [
    "mandatory",
    "alpn",
    "no-default-alpn",
    "port",
    "ipv4hint",
    "ech",
    "ipv6hint",
    "dohpath",
    "ohttp",
];

/// The first number whose name hickory-proto does not know.
const FIRST_BY_NUMBER: usize = 7;

/// Puts parameters (`KEY` or `KEY=VALUE`) in the order of their keys. What is no key stays behind them all,
/// and is an error where it is read.
pub(super) fn put_in_order(parameters: &mut [String]) {
    for parameter in parameters.iter_mut() {
        let (name, value) = split(parameter);
        if let Some(number) = number(name).filter(|number| *number >= FIRST_BY_NUMBER) {
            *parameter = format!("key{number}{value}");
        }
    }
    parameters.sort_by_key(|parameter| number(split(parameter).0).unwrap_or(usize::MAX));
}

/// The key, and what stands behind it.
fn split(parameter: &str) -> (&str, &str) {
    parameter.split_at(parameter.find('=').unwrap_or(parameter.len()))
}

fn number(name: &str) -> Option<usize> {
    let named = KEYS.iter().position(|key| *key == name);
    named.or_else(|| name.strip_prefix("key")?.parse::<u16>().ok().map(usize::from))
}

#[cfg(test)]
mod tests {
    use super::put_in_order;

    #[test]
    fn parameters_are_put_in_the_order_of_their_keys() {
        let text =
            "ipv6hint=::1 key5=x port=443 what ohttp alpn=\"h2,h3\" dohpath=/q{?dns} key65000";
        let mut parameters: Vec<String> = text.split(' ').map(str::to_owned).collect();
        put_in_order(&mut parameters);
        let expected =
            "alpn=\"h2,h3\" port=443 key5=x ipv6hint=::1 key7=/q{?dns} key8 key65000 what";
        assert_eq!(parameters.join(" "), expected);
    }
}
