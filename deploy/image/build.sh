#!/bin/sh
# Makes the image without a Docker engine, as an OCI layout: build.sh FOLDER [NODENS]
# Needs umoci. NODENS is a static program; it is compiled when not given. The same program gives the
# same image, octet for octet.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
layout=$1
nodens=${2:-}
: "${SOURCE_DATE_EPOCH:=0}"
export SOURCE_DATE_EPOCH
if [ -z "$nodens" ]; then
    "$here/compile.sh"
    nodens=$here/../../target/static/nodens
fi
version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$here/../../Cargo.toml" | head -n 1)
created=$(date --utc --date="@$SOURCE_DATE_EPOCH" +%Y-%m-%dT%H:%M:%SZ)
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
"$here/rootfs.sh" "$nodens" "$root"
umoci init --layout "$layout"
umoci new --image "$layout:$version"
umoci insert --image "$layout:$version" --history.created "$created" --history.created_by rootfs.sh "$root" /
umoci config --image "$layout:$version" --no-history --created "$created" \
    --os linux --architecture "$(uname -m | sed 's/x86_64/amd64/; s/aarch64/arm64/')" \
    --config.user 0:0 --config.entrypoint /node-cache \
    --config.label org.opencontainers.image.title=nodens \
    --config.label "org.opencontainers.image.description=NodeLocal DNSCache in Rust" \
    --config.label org.opencontainers.image.source=https://github.com/nodens/nodens \
    --config.label org.opencontainers.image.licenses=Apache-2.0 \
    --config.label "org.opencontainers.image.version=$version"
umoci gc --layout "$layout"
echo "$layout:$version"
