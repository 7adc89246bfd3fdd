//! The binary: hands the command line to the library.

fn main() {
    // Before anything else: a reload signal may come while we start.
    nodens::sys::signals::ignore_until_handled();
    nodens::sys::descriptors::raise_limit();
    nodens::sys::memory::prepare();
    let arguments = std::env::args_os().map(|text| text.to_string_lossy().into_owned());
    let code = nodens::cli::main(&arguments.collect::<Vec<String>>());
    // Not a return: threads that still wait on something must not hold the exit up.
    std::process::exit(i32::from(code))
}
