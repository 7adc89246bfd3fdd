"""The servers that scripts of this folder measure: how each is started, and the files that it reads."""

# The block beside the one that is under load: {port} and {up} as below.
BESIDE = """.:{port} {{
    errors
    cache 3600
    bind 127.0.0.1
    forward . 127.0.0.1:{up} {{
        force_tcp
    }}
    prometheus 127.0.0.1:9395
}}
"""

# Each: port, the command, the files that it reads. {dir} is a fresh directory, {port} the port,
# {up} the upstream's port, {entries} how many names the cache must hold.
COREFILE = """.:{port} {{
    errors
    cache {{
        success {entries} 3600
        denial {entries} 3600
    }}
    bind 127.0.0.1
    forward . 127.0.0.1:{up} {{
        force_tcp
    }}
    prometheus 127.0.0.1:9395
}}
"""
UNBOUND = """server:
    interface: 127.0.0.1@{port}
    do-ip6: no
    num-threads: 1
    use-syslog: no
    logfile: ""
    username: ""
    chroot: ""
    directory: "{dir}"
    pidfile: ""
    do-not-query-localhost: no
    module-config: "iterator"
    msg-cache-size: {half}
    rrset-cache-size: {full}
    msg-cache-slabs: 1
    rrset-cache-slabs: 1
    infra-cache-slabs: 1
    key-cache-slabs: 1
    num-queries-per-thread: 4096
    outgoing-range: 8192
    outgoing-num-tcp: 64
    max-reuse-tcp-queries: 100000
    tcp-reuse-timeout: 60000
    minimal-responses: yes
    qname-minimisation: no
    unblock-lan-zones: yes
    insecure-lan-zones: yes
    local-zone: "test." nodefault
remote-control:
    control-enable: no
forward-zone:
    name: "."
    forward-addr: 127.0.0.1@{up}
    forward-tcp-upstream: yes
"""
HICKORY = """listen_addrs_ipv4 = ["127.0.0.1"]
listen_addrs_ipv6 = []
listen_port = {port}
user = "root"
group = "root"
[[zones]]
zone = "."
zone_type = "External"
[zones.stores]
type = "forward"
[[zones.stores.name_servers]]
ip = "127.0.0.1"
trust_negative_responses = true
connections = [{{ protocol = {{ type = "tcp" }}, port = {up} }}]
[zones.stores.options]
cache_size = {entries}
edns0 = false
"""
SERVERS = {
    "nodens": (
        5392,
        "{nodens} -localip 127.0.0.1 -setupinterface=false -setupiptables=false -basecorefile {dir}/base"
        " -conf {dir}/Corefile -metrics-listen-address 127.0.0.1:9396",
        {"base": COREFILE},
    ),
    "unbound": (5393, "unbound -d -p -c {dir}/unbound.conf", {"unbound.conf": UNBOUND}),
    "dnsmasq": (
        5394,
        "dnsmasq --keep-in-foreground --no-hosts --no-resolv --no-poll --conf-file=/dev/null --user=root --pid-file="
        " --listen-address=127.0.0.1 --bind-interfaces --port={port} --server=127.0.0.1#{up}"
        " --cache-size={entries} --dns-forward-max=10000 --log-facility=-",
        {},
    ),
    "hickory-dns": (5395, "{hickory} -q --workers 1 -c {dir}/named.toml", {"named.toml": HICKORY}),
}
