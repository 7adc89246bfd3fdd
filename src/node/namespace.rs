//! A network namespace for tests of this folder: a test is run again by the same binary in one of its
//! own, which goes with it. Nothing of the node that runs the tests is touched.

use std::process::Command;

/// For a test by its whole name. True in the namespace, where the test is to go on. Outside it runs the test there, or says what
/// is missing and fails where all tests are asked for.
pub(super) fn in_namespace(test: &str) -> bool {
    const INSIDE: &str = "NODENS_TEST_INSIDE";
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let probe = Command::new("unshare").args(["--net", "ip", "link", "show"]).output();
    if !probe.is_ok_and(|output| output.status.success()) {
        let what = "root, unshare and ip";
        assert!(std::env::var("NODENS_TEST_ALL").as_deref() != Ok("1"), "missing: {what}");
        println!("not run, missing: {what}");
        return false;
    }
    let output = Command::new("unshare")
        .arg("--net")
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}{errors}");
    false
}
