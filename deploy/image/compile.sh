#!/bin/sh
# Compiles nodens so that it needs no library of the system: target/static/nodens.
# With musl's target where it is installed, else with glibc's static libraries.
set -eu
cd "$(dirname "$0")/../.."
machine=$(uname -m)
target=$machine-unknown-linux-gnu
if [ -d "$(rustc --print sysroot)/lib/rustlib/$machine-unknown-linux-musl" ]; then
    target=$machine-unknown-linux-musl
fi
# Paths of the machine that compiles stay out of the program, so that two of them make the same.
RUSTFLAGS="-C target-feature=+crt-static --remap-path-prefix=$PWD=/nodens --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo" \
    cargo build --locked --release --quiet --target "$target" --bin nodens
mkdir -p target/static
cp "${CARGO_TARGET_DIR:-target}/$target/release/nodens" target/static/nodens
