//! `metadata`: labels of a query (`{/forward/upstream}`) are collected for `log` and `rewrite`.
//!
//! Owns that labels are wanted; those who set or read labels are other plugins. Its zones are for plugins that
//! are asked for labels before the query passes (CoreDNS's `Provider`); there is none here, nor in node-cache.

use super::{Context, Flow, Handler, Setup};
use crate::corefile::CorefileError;
use crate::dns::{Query, Response};

struct Metadata;

impl Handler for Metadata {
    fn word(&self) -> &'static str {
        "metadata"
    }

    fn query(
        &self,
        _query: &mut Query<'_>,
        _response: &mut Response,
        context: &mut Context<'_>,
    ) -> Flow {
        context.labels.wanted = true;
        Flow::Next
    }
}

/// Reads the directive: zones, which change nothing.
///
/// # Errors
///
/// `Wrong argument count or unexpected line ending after '…'` for a block and for a second `metadata`.
pub fn setup(setup: &mut Setup<'_>) -> Result<(), CorefileError> {
    let dispenser = &mut setup.dispenser;
    dispenser.next();
    dispenser.remaining_args();
    if dispenser.next_block() || dispenser.next() {
        return Err(dispenser.arg_err());
    }
    setup.block.metadata = true;
    setup.block.add(Metadata);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::testing::Bench;
    use super::*;
    use crate::corefile::MemorySurroundings;
    use crate::dns::{Class, RecordType};
    use std::sync::Arc;

    struct Labeller;

    impl Handler for Labeller {
        fn word(&self) -> &'static str {
            "labeller"
        }

        fn query(
            &self,
            _query: &mut Query<'_>,
            _response: &mut Response,
            context: &mut Context<'_>,
        ) -> Flow {
            context.labels.set("test/label", || "x".to_owned());
            Flow::Answer
        }
    }

    fn labels(directive: &str, name: &str) -> usize {
        let mut bench = Bench::new();
        let mut chain = bench.load(directive, &MemorySurroundings::new()).unwrap();
        chain.push(Arc::new(Labeller));
        let query = Query::new(&name.parse().unwrap(), RecordType::A, Class::IN);
        bench.ask(&chain, query, |_, _| {}).labels.len()
    }

    #[test]
    fn what_plugins_say_as_a_query_passes_is_collected_outside_the_zones_too() {
        assert_eq!(labels("metadata", "a.test."), 1);
        assert_eq!(labels("metadata test", "a.test."), 1);
        assert_eq!(labels("metadata other", "a.test."), 1);
        assert_eq!(labels("debug", "a.test."), 0);
    }

    #[test]
    fn it_stands_once_and_has_no_block() {
        for text in ["metadata\nmetadata", "metadata {\n x\n}"] {
            let error = Bench::new().load_error(text, &MemorySurroundings::new());
            assert!(error.contains("Wrong argument count"), "{error}");
        }
    }
}
