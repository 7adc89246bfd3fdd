#!/bin/sh
# Makes the Debian package: build.sh FOLDER [NODENS]
# Needs cargo-deb and dpkg-dev. NODENS is the program, target/release/nodens when not given. The same
# program gives the same package, octet for octet.
set -eu
folder=$(mkdir -p "$1" && cd "$1" && pwd)
cd "$(dirname "$0")/../.."
target=${CARGO_TARGET_DIR:-target}
nodens=${2:-$target/release/nodens}
: "${SOURCE_DATE_EPOCH:=$(dpkg-parsechangelog --file deploy/debian/changelog --show-field Timestamp)}"
export SOURCE_DATE_EPOCH
# cargo-deb finds there what Cargo.toml names as target/release/debian.
made=$target/release/debian
rm -rf "$made"
mkdir -p "$made"
strip --strip-unneeded --remove-section=.comment --remove-section=.note -o "$made/nodens" "$nodens"
"$nodens" man | gzip -9n >"$made/nodens.1.gz"
# The pages of the commands that this page names.
for word in $("$nodens" man | sed -n 's/^nodens\\-\([a-z]*\)(1)$/\1/p'); do
    "$nodens" man "$word" | gzip -9n >"$made/nodens-$word.1.gz"
done
for shell in bash zsh fish; do "$nodens" completions "$shell" >"$made/nodens.$shell"; done
deploy/release/materials.py "$made"
gzip -9n "$made/THIRD-PARTY-LICENSES.txt"
cargo deb --quiet --no-build --no-strip --output "$folder/"
