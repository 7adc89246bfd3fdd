//! What becomes of a process that another one has taken over from.

/// What a process does that another one has taken over from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AfterHandover {
    /// It ends.
    End,
    /// It ends once its successor has served for a while, and serves again should that be gone before.
    Prove,
    /// It waits for its end to be asked for, and serves again should its successor be gone before:
    /// where a process that ends is started anew, and would take over in its turn.
    Wait,
}

impl AfterHandover {
    /// Waits in a pod, where kubelet starts anew whatever ends.
    pub(crate) fn by(variable: impl Fn(&str) -> Option<String>) -> AfterHandover {
        match variable("KUBERNETES_SERVICE_HOST") {
            Some(_) => AfterHandover::Wait,
            None => AfterHandover::Prove,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_of_a_pod_waits_for_its_end() {
        let of =
            |name: &'static str| AfterHandover::by(move |word| (word == name).then(String::new));
        assert_eq!(of("KUBERNETES_SERVICE_HOST"), AfterHandover::Wait);
        assert_eq!(of("HOME"), AfterHandover::Prove);
    }
}
