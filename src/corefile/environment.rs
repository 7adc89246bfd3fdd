//! `{$NAME}` and `{%NAME%}`: environment variables in tokens (after the lexer, so a value never
//! becomes several tokens). Owns the bound on values that name variables again.

use super::Surroundings;

/// The greatest number of replacements in one token; values may name variables themselves, and a
/// variable that names itself would never end.
const MOST_REPLACEMENTS: usize = 1_000;

/// The greatest length in octets that a token grows to by replacement.
const MOST_OCTETS: usize = 1 << 20;

/// `text` with all variables replaced, first those in percent signs. Unset ones become empty; an
/// empty or unterminated name stays and ends the replacement, as in CoreDNS.
pub(super) fn replace(text: &str, surroundings: &dyn Surroundings) -> String {
    let text = replace_form(text.to_owned(), "{%", "%}", surroundings);
    replace_form(text, "{$", "}", surroundings)
}

fn replace_form(
    mut text: String,
    open: &str,
    close: &str,
    surroundings: &dyn Surroundings,
) -> String {
    for _ in 0..MOST_REPLACEMENTS {
        let Some(start) = text.find(open) else { break };
        let Some(length) = text[start..].find(close) else { break };
        if length <= open.len() || text.len() > MOST_OCTETS {
            break;
        }
        let name = &text[start + open.len()..start + length];
        let value = surroundings.variable(name).unwrap_or_default();
        let reference = text[start..start + length + close.len()].to_owned();
        text = text.replace(&reference, &value);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::MemorySurroundings;
    use super::*;

    #[test]
    fn variables_are_replaced_in_both_forms() {
        let world = MemorySurroundings::new().with_variable("A", "1").with_variable("B", "x y");
        assert_eq!(replace("{$A}:{%B%}:{$C}:{$A}", &world), "1:x y::1");
        assert_eq!(replace("{$}{$A}", &world), "{$}{$A}");
        assert_eq!(replace("{%%}", &world), "{%%}");
        assert_eq!(replace("a{$A", &world), "a{$A");
    }

    #[test]
    fn a_variable_that_names_itself_ends() {
        let world = MemorySurroundings::new()
            .with_variable("A", "{$A}")
            .with_variable("B", "{$C}{$C}")
            .with_variable("C", "{$B}{$B}");
        assert_eq!(replace("{$A}", &world), "{$A}");
        assert!(replace("{$B}", &world).len() < 4 * MOST_OCTETS);
    }
}
