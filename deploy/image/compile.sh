#!/bin/sh
# Compiles nodens so that it needs no file of the system: target/static/nodens, what the image holds
# and what .ci/run tests. Position-independent and static, with glibc's static library (libc6-dev):
# musl's memory allocator is several times slower where threads allocate at once.
# Where it is loaded is told in the packed form (DT_RELR), which takes a hundredth of the octets. Functions of
# equal code are one function: profiles show it under one of its names.
set -eu
cd "$(dirname "$0")/../.."
target=$(uname -m)-unknown-linux-gnu
# Paths of the machine that compiles stay out of the program, so that two of them make the same.
RUSTFLAGS="-C target-feature=+crt-static --remap-path-prefix=$PWD=/nodens --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo" \
    cargo rustc --locked --release --quiet --target "$target" --bin nodens -- \
    -C link-arg=-Wl,-z,pack-relative-relocs -C link-arg=-Wl,--icf=all
mkdir -p target/static
cp "${CARGO_TARGET_DIR:-target}/$target/release/nodens" target/static/nodens
