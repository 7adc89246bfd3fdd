#!/bin/bash
# The load test that a user would run: dnsperf over 1,000 cached names, against nodens and against
# Unbound and dnsmasq in the same run, each server on one core, dnsperf and the upstream (Knot DNS) on
# another. Everything on 127.0.0.1; bounded in time; stops what it started.
#
#   benches/dnsperf.sh [--seconds N] [--servers "nodens unbound dnsmasq"] [--tcp]
#
# Needs dnsperf and knotd; a peer that is not installed is left out with a line that says so.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=10 servers="nodens unbound dnsmasq" mode=udp
while [ $# -gt 0 ]; do
    case $1 in
        --seconds) seconds=$2; shift 2 ;;
        --servers) servers=$2; shift 2 ;;
        --tcp) mode=tcp; shift ;;
        *) sed -n '2,8p' "$0"; exit 64 ;;
    esac
done
for tool in dnsperf knotd; do
    command -v "$tool" >/dev/null || { echo "dnsperf.sh: $tool is missing (Debian: dnsperf, knot)" >&2; exit 69; }
done
[ -x target/release/nodens ] || cargo build --release --quiet

dir=$(mktemp -d)
pids=()
cleanup() {
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
    rm -rf "$dir"
}
trap cleanup EXIT
# Those that this process may use: a container may have others than the first.
mapfile -t cores < <(python3 -c 'import os; print(*sorted(os.sched_getaffinity(0)), sep="\n")')
server_core=${cores[0]} load_core=${cores[1]:-${cores[0]}}

start() { # core command...: runs it in the background, remembers the pid
    local core=$1; shift
    taskset -c "$core" "$@" >>"$dir/log" 2>&1 &
    pids+=($!)
    last=$!
}

answers() { # port: waits until the server answers
    for _ in $(seq 300); do
        if dnsperf -s 127.0.0.1 -p "$1" -m "$mode" -d "$dir/one" -n 1 -t 1 -c 1 2>/dev/null | grep -q 'Queries completed:  *1 '; then return 0; fi
        sleep 0.1
    done
    echo "dnsperf.sh: no answer on port $1" >&2; tail -5 "$dir/log" >&2; return 1
}

# The upstream: 1,000 names of a zone.
upstream=5391
mkdir -p "$dir/knot"
{
    echo '$ORIGIN svc.cluster.local.'
    echo '@ 3600 SOA ns. hostmaster. 1 3600 600 86400 30'
    echo '@ 3600 NS ns.'
    for i in $(seq 0 999); do echo "s$i 3600 A 10.96.$((i / 250)).$((i % 250 + 1))"; done
} >"$dir/zone"
for i in $(seq 0 999); do echo "s$i.svc.cluster.local A"; done >"$dir/queries"
head -1 "$dir/queries" >"$dir/one"
cat >"$dir/knot.conf" <<EOF
server:
    rundir: $dir/knot
    listen: 127.0.0.1@$upstream
    udp-workers: 1
    tcp-workers: 1
    background-workers: 1
database:
    storage: $dir/knot
zone:
  - domain: svc.cluster.local
    file: $dir/zone
    zonefile-load: whole
    journal-content: none
EOF
start "$load_core" knotd -c "$dir/knot.conf"

cat >"$dir/nodens.Corefile" <<EOF
.:5392 {
    errors
    cache {
        success 131072 3600
        denial 131072 3600
    }
    bind 127.0.0.1
    forward . 127.0.0.1:$upstream {
        force_tcp
    }
    prometheus 127.0.0.1:9395
}
EOF
cat >"$dir/unbound.conf" <<EOF
server:
    interface: 127.0.0.1@5393
    do-ip6: no
    num-threads: 1
    use-syslog: no
    logfile: ""
    username: ""
    chroot: ""
    directory: "$dir"
    pidfile: ""
    do-not-query-localhost: no
    module-config: "iterator"
    tcp-upstream: yes
    local-zone: "local." nodefault
forward-zone:
    name: "."
    forward-addr: 127.0.0.1@$upstream
EOF

printf '%-10s %12s %14s %10s %10s\n' server queries/s 'CPU µs/query' lost 'RSS MiB'
hertz=$(getconf CLK_TCK)
for name in $servers; do
    case $name in
        nodens) port=5392; command=(target/release/nodens -localip 127.0.0.1 -setupinterface=false -setupiptables=false
            -basecorefile "$dir/nodens.Corefile" -conf "$dir/Corefile" -metrics-listen-address 127.0.0.1:9396) ;;
        unbound) port=5393; command=(unbound -d -p -c "$dir/unbound.conf") ;;
        dnsmasq) port=5394; command=(dnsmasq --keep-in-foreground --no-hosts --no-resolv --cache-size=10000 --user=root
            --listen-address=127.0.0.1 --bind-interfaces --port=5394 --server="127.0.0.1#$upstream" --dns-forward-max=1000 --log-facility=-) ;;
        *) echo "dnsperf.sh: unknown server $name" >&2; exit 64 ;;
    esac
    if ! command -v "${command[0]}" >/dev/null; then
        echo "$name: not installed, left out"
        continue
    fi
    start "$server_core" "${command[@]}"
    pid=$last
    answers "$port"
    # Warm: every name twice.
    taskset -c "$load_core" dnsperf -s 127.0.0.1 -p "$port" -m "$mode" -d "$dir/queries" -n 2 -c 4 -q 20 >/dev/null 2>&1
    before=$(awk '{print $14 + $15}' "/proc/$pid/stat")
    taskset -c "$load_core" dnsperf -s 127.0.0.1 -p "$port" -m "$mode" -d "$dir/queries" -l "$seconds" -c 16 -q 128 >"$dir/out" 2>&1
    after=$(awk '{print $14 + $15}' "/proc/$pid/stat")
    rate=$(awk '/Queries per second/ {print $4}' "$dir/out")
    completed=$(awk '/Queries completed/ {print $3}' "$dir/out")
    lost=$(awk '/Queries lost/ {print $3}' "$dir/out")
    rss=$(awk '/VmRSS/ {printf "%.1f", $2 / 1024}' "/proc/$pid/status")
    printf '%-10s %12.0f %14.2f %10s %10s\n' "$name" "$rate" \
        "$(awk -v t="$((after - before))" -v h="$hertz" -v n="$completed" 'BEGIN {print t / h * 1e6 / n}')" "$lost" "$rss"
    kill "$pid"; wait "$pid" 2>/dev/null || true
done
