//! A Corefile template of a node-cache ConfigMap: filled in with the values of a node, or with
//! plausible ones, and back from the filled-in text to the template's own lines and columns.

use crate::corefile::Place;
use crate::node::{KubeDns, NodeValues, render};

/// What nodens and node-cache fill in.
const VARIABLES: [&str; 5] = [
    "__PILLAR__CLUSTER__DNS__",
    "__PILLAR__LOCAL__DNS__",
    "__PILLAR__UPSTREAM__SERVERS__",
    "__PILLAR__DNS__SERVER__",
    "__PROMETHEUS__ENDPOINT__",
];

/// Whether a text is a template: it has one of the variables.
pub(super) fn is_template(text: &str) -> bool {
    VARIABLES.iter().any(|variable| text.contains(variable))
}

/// A filled-in template.
pub(super) struct Filled {
    /// The Corefile.
    pub(super) text: String,
    /// How each variable was filled in.
    values: Vec<(&'static str, String)>,
}

impl Filled {
    /// Fills it in, as a node without a kube-dns ConfigMap does: so each line stays its line.
    pub(super) fn new(template: &str, values: &NodeValues) -> Filled {
        let fill = |text: &str| render(text, values, &KubeDns::default()).text;
        let values = VARIABLES.map(|variable| (variable, fill(variable))).to_vec();
        Filled { text: fill(template), values }
    }

    /// Where a place of the filled-in text stands in the template; a filled-in word is its whole
    /// variable.
    pub(super) fn back(&self, template: &str, place: &Place) -> Place {
        let index = usize::try_from(place.line.saturating_sub(1)).unwrap_or(usize::MAX);
        let Some(line) = template.lines().nth(index) else { return place.clone() };
        let start = place.column.saturating_sub(1);
        let end = start.saturating_add(place.length.max(1));
        // From the first to behind the last letter of the template that the place has a part of.
        let (mut filled, mut own) = (0u32, 0u32);
        let (mut from, mut to) = (None, 0);
        let mut rest = line;
        while !rest.is_empty() {
            let found = self.values.iter().find(|(variable, _)| rest.starts_with(variable));
            let (taken, made) = match found {
                Some((variable, value)) => (variable.len(), count(value)),
                None => (rest.chars().next().map_or(1, char::len_utf8), 1),
            };
            let width = count(&rest[..taken]);
            if filled < end && filled + made > start {
                from.get_or_insert(own);
                to = own + width;
            }
            filled += made;
            own += width;
            rest = &rest[taken..];
        }
        let from = from.unwrap_or(own);
        Place { column: from + 1, length: to.saturating_sub(from), ..place.clone() }
    }
}

fn count(text: &str) -> u32 {
    u32::try_from(text.chars().count()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(template: &str) -> Filled {
        let values = NodeValues {
            local: "169.254.20.10,10.96.0.10".to_owned(),
            cluster_dns: Ok("10.96.0.11".parse().unwrap()),
            prometheus: ":9253".to_owned(),
            dns_port: 53,
        };
        Filled::new(template, &values)
    }

    #[test]
    fn a_place_behind_variables_is_found_again() {
        let template = "bind __PILLAR__LOCAL__DNS__ __PILLAR__DNS__SERVER__ x\nforward . y\n";
        let filled = filled(template);
        assert_eq!(filled.text, "bind 169.254.20.10 10.96.0.10  x\nforward . y\n");
        let back = |line, column, length| {
            let place = Place { file: "C".into(), line, column, length };
            let found = filled.back(template, &place);
            (found.line, found.column, found.length)
        };
        assert_eq!(back(1, 1, 4), (1, 1, 4));
        assert_eq!(back(1, 20, 10), (1, 6, 22), "the second address is the variable's");
        assert_eq!(back(1, 32, 1), (1, 53, 1));
        assert_eq!(back(2, 11, 1), (2, 11, 1));
        assert_eq!(back(9, 1, 1), (9, 1, 1));
    }

    #[test]
    fn a_template_is_known_by_its_variables() {
        assert!(is_template("prometheus __PROMETHEUS__ENDPOINT__"));
        assert!(!is_template("__PILLAR__DNS__DOMAIN__ { }"), "only deployers fill that in");
    }
}
