//! Requests that are made, and answers that are read.

use super::answers::HOOK_INPUT;
use super::*;
use crate::sys::netlink::Message;

fn message(kind: u16, family: u8, fill: impl FnOnce(Request) -> Request) -> Message {
    Message {
        kind,
        flags: 0,
        sequence: 0,
        payload: fill(Request::new(kind, 0).fixed(&[family, 0, 0, 0])).octets()[16..].to_vec(),
    }
}

#[test]
fn an_address_has_the_eight_rules_before_connection_tracking() {
    let rules = rules(&Plan::of(&["169.254.20.10", "fd00::a"]));
    assert_eq!(rules.len(), 16);
    assert!(rules.iter().all(|rule| new_rule("nodens", rule).is_some()));
    let incoming = rules.iter().filter(|rule| rule.place == Place::RawPrerouting);
    assert!(incoming.clone().all(|rule| rule.side == Side::Destination && rule.port == 53));
    assert_eq!(incoming.count(), 4);
}

#[test]
fn a_rule_says_that_it_is_ours() {
    let rule = rules(&Plan::of(&["10.0.0.10"]))[0];
    let request = new_rule("nodens", &rule).unwrap();
    let found =
        Message { kind: 0, flags: 0, sequence: 0, payload: request.octets()[16..].to_vec() };
    assert!(is_marked(&found) && is_of_table(&found, "nodens"));
    assert!(!is_of_table(&found, "other"));
    for userdata in [&[][..], &[0, 200, b'N'], &[1, 2, b'N', 0], b"\0\x03abc"] {
        let other = message(0, INET, |request| request.attribute(RULE_USERDATA, userdata));
        assert!(!is_marked(&other), "{userdata:?}");
    }
}

#[test]
fn a_chain_that_drops_what_comes_in_is_seen() {
    let chain = |family: u8, hook: u32, policy: u32| {
        let message = message(0, family, |request| {
            let request = request.text(CHAIN_TABLE, "filter").text(CHAIN_NAME, "INPUT");
            let request = request.nested(CHAIN_HOOK, |inner| number(inner, HOOK_NUMBER, hook));
            number(request, CHAIN_POLICY, policy)
        });
        read_chain(&message)
    };
    assert!(chain(IPV4, HOOK_INPUT, DROP).drops_input);
    assert!(!chain(IPV4, HOOK_INPUT, ACCEPT).drops_input);
    assert!(!chain(IPV4, 0, DROP).drops_input);
    assert!(!chain(7, HOOK_INPUT, DROP).drops_input);
    assert_eq!(chain(IPV6, 0, DROP).family, "ip6");
}

#[test]
fn tables_are_read_with_their_owner() {
    let of = |request: Request| {
        read_table(&Message {
            kind: 0,
            flags: 0,
            sequence: 0,
            payload: request.octets()[16..].to_vec(),
        })
    };
    let found = of(number(get_table("nodens"), TABLE_OWNER, 7));
    assert_eq!((found.name.as_str(), found.family, found.owner), ("nodens", "inet", Some(7)));
    assert_eq!(of(get_table("nodens")).owner, None);
    assert_eq!(of(get_table("nodens").attribute(TABLE_OWNER, &[1])).owner, None);
}
