#!/bin/sh
# The image's files: rootfs.sh NODENS FOLDER. Every time stamp is SOURCE_DATE_EPOCH.
set -eu
nodens=$1 root=$2
mkdir -p "$root/etc/ssl/certs" "$root/etc/coredns" "$root/etc/kube-dns" "$root/etc/nodens" "$root/run/nodens" "$root/tmp"
chmod 1777 "$root/tmp"
install -m 0755 "$nodens" "$root/nodens"
ln -sf nodens "$root/node-cache"
# The authorities of tls:// and https:// upstreams.
install -m 0644 /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
# The licences of all that is in it, and what that is.
"$(dirname "$0")/../release/materials.py" "$root/usr/share/doc/nodens"
install -m 0644 "$(dirname "$0")/../../LICENSE" "$root/usr/share/doc/nodens/LICENSE"
find "$root" -exec touch --no-dereference --date="@${SOURCE_DATE_EPOCH:-0}" {} +
