//! `whoami` (spec/coredns.md).

use super::Setup;
use crate::corefile::CorefileError;

/// Reads the directive.
pub fn setup(setup: &mut Setup<'_>) -> Result<(), CorefileError> {
    let _ = setup;
    todo!()
}
