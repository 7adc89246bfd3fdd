//! What the program says it is.

/// The CoreDNS version whose behaviour this is: what dashboards and `-version` readers compare.
pub(super) const COREDNS_VERSION: &str = "1.13.2";

/// The compiler, such as `rustc 1.95.0`: stands where CoreDNS shows Go's version.
pub(super) const COMPILER: &str = env!("NODENS_RUSTC");

/// The commit, empty when the build was not told.
pub(super) const REVISION: &str = env!("NODENS_REVISION");

/// The two lines of `-version` and of the start, without the last newline.
pub fn banner() -> String {
    format!(
        "CoreDNS-{COREDNS_VERSION}\n{}/{}, nodens {}, {COMPILER}, {REVISION}",
        std::env::consts::OS,
        go_architecture(),
        env!("CARGO_PKG_VERSION"),
    )
}

fn go_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_banner_starts_with_corednss_version() {
        let text = super::banner();
        assert!(text.starts_with("CoreDNS-1.13.2\nlinux/"), "{text}");
        assert!(text.contains("rustc 1."), "{text}");
    }
}
