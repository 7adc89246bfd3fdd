//! The handler's decisions and the directive's errors, as a Corefile author and a client see them.

use super::*;
use crate::dns::RecordType;
use crate::plugin::testing::{Bench, always, nobody, query};
