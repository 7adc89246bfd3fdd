#!/bin/busybox sh
# A node: what run.py boots. Makes a pod, a cluster DNS and kube-proxy's rules around a nodens, and
# tells on the console of each check. Needs no file but those that run.py packs.
#
# Nothing here depends on speed: what is waited for has seconds, and how long it took is told.

/bin/busybox --install -s /bin
mkdir -p /sbin && ln -s /bin/busybox /sbin/modprobe
PATH=/usr/sbin:/bin
export PATH
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev 2>/dev/null
mount -t tmpfs tmp /tmp
mount -t tmpfs run /run
LOCAL=169.254.20.10 INNER=169.254.20.11 SERVICE=10.96.0.10
LOCAL6=fd00::a INNER6=fd00::b SERVICE6=fd00:96::a
CLUSTER=10.0.0.2
UPSTREAM=$CLUSTER

# Not busybox's, which the shell would take whatever PATH says.
ip() { /usr/sbin/ip "$@"; }

# check SENTENCE COMMAND...: tells whether it holds; what it said and the logs when it does not.
check() {
    sentence=$1 took=
    shift
    if "$@" >/tmp/said 2>&1; then
        echo "ok $sentence${took:+ ($took s)}"
    else
        echo "FAILED $sentence: $*"
        tail -n 40 /tmp/said "/tmp/log$number" | sed 's/^/| /'
    fi
}

now() { cut -d ' ' -f 1 /proc/uptime; }

# within SECONDS COMMAND...: until it holds.
within() {
    began=$(now) seconds=$1
    shift
    until "$@"; do
        [ "$(echo "$(now) $began $seconds" | awk '{ print ($1 - $2 < $3) }')" = 1 ] || return 1
        usleep 20000
    done
    took=$(echo "$(now) $began" | awk '{ printf "%.2f", $1 - $2 }')
}

# all COMMAND-LINE...: all of them hold.
all() {
    for line; do
        eval "$line" || { echo "does not hold: $line"; return 1; }
    done
}

not() { ! "$@"; }

# start NUMBER FLAGS...: a nodens with the log /tmp/logNUMBER; its id is in $pid. A system call that is not
# listed ends it.
start() {
    number=$1
    shift
    cat >/tmp/Corefile <<END
who.test:53 {
    bind $BIND
    health [$LOCAL6]:8080
    template IN A {
        answer "{{ .Name }} 60 IN A 192.0.2.1"
    }
}
cluster.local:53 {
    bind $BIND
    cache
    forward . $UPSTREAM
}
END
    nodens -localip="$(echo $BIND | tr ' ' ,)" -dual-stack -conf=/tmp/Corefile$number -basecorefile=/tmp/Corefile \
        -metrics-listen-address=127.0.0.1:9353 -seccomp=kill "$@" >/tmp/log$number 2>&1 &
    pid=$!
}
BIND="$LOCAL $SERVICE $LOCAL6"

# stop SIGNAL: the running one; its exit code.
stop() {
    kill -s "$1" "$pid"
    wait "$pid"
}

# who NAMESPACE SERVER [NAME]: who answers there.
who() {
    case $(ip netns exec "$1" timeout 3 nslookup -type=a "${3:-who.test}" "$2" 2>&1) in
    *192.0.2.1*) echo nodens ;;
    *192.0.2.2*) echo cluster ;;
    *) echo nobody ;;
    esac
}
is_answered_by() { [ "$(who "$2" "$3" "$4")" = "$1" ]; }
# over_tcp NAMESPACE SERVER ADDRESS: a query for who.test gets the address, which is in hex.
over_tcp() {
    printf '\000\032\000\007\001\000\000\001\000\000\000\000\000\000\003who\004test\000\000\001\000\001' |
        ip netns exec "$1" timeout 3 nc -w 2 "$2" 53 | xxd -p | tr -d '\n' | grep -q "$3"
}
says() { grep -qF -- "$2" /tmp/log"$1"; }
has_said() { [ "$(grep -cF -- "$2" "/tmp/log$number")" = "$1" ]; } # COUNT TEXT: by the last that was started.
metric() { [ "$(wget -qO - http://127.0.0.1:9353/metrics | awk -v name="$1" '$1 == name { print $2 }')" -ge "$2" ]; }
has_address() { ip -o address show dev "${2:-nodelocaldns}" 2>/dev/null | grep -q " $1/"; }
has_interface() { [ -d /sys/class/net/nodelocaldns ]; }
has_table() { nft list tables | grep -q "inet $1\$"; }
# rules KIND: how many of node-cache's there are, of both families.
rules() { for family in iptables ip6tables; do /$1/$family-save; done | grep -c 'NodeLocal DNS Cache'; }
has_rules() { [ "$(rules "$1")" = "$2" ]; }
# is_tracked ADDRESS: whether the kernel tracks a query to it.
is_tracked() { grep -q "dst=$1 .*dport=53 " /proc/net/nf_conntrack; }


echo && echo "on Linux $(uname -r)"
ip link set lo up
ip netns add pod
ip netns add dns
ip netns attach node 1
echo 1 >/proc/sys/net/ipv4/ip_forward
echo 1 >/proc/sys/net/ipv6/conf/all/forwarding

# Before any module can be loaded: a kernel that lacks what a node needs.
echo /bin/false >/proc/sys/kernel/modprobe
start 1 -firewall=nftables
check 'without a dummy driver it names the module and the loopback interface' \
    within 20 says 1 'load the module `dummy`, or name an interface that is there, such as the loopback one: -interfacename lo'
within 10 not kill -0 "$pid"
start 2 -firewall=nftables -interfacename=lo
check 'without nf_tables it serves' within 20 is_answered_by nodens node $SERVICE
check 'without nf_tables it says what to load and counts each rule' \
    all 'within 20 says 2 "This kernel has no nf_tables: load the module"' \
    'metric "nodens_node_trouble_total{reason=\"no_nf_tables\"}" 1' \
    'metric "coredns_nodecache_setup_errors_total{errortype=\"nftables\"}" 24'
stop TERM
PATH=/legacy:$PATH start 3 -interfacename=lo
check 'without nf_tables auto is iptables, whose tables are missing, too' \
    all 'within 20 says 3 "by iptables: this kernel has no nf_tables"' \
    'within 20 metric "coredns_nodecache_setup_errors_total{errortype=\"iptables\"}" 36' \
    'is_answered_by nodens node $SERVICE'
check 'the loopback interface is as it was at the end' \
    all 'stop TERM' 'not has_address $LOCAL lo' 'not has_address $LOCAL6 lo'

# From now on the kernel loads what is asked for, as a node's does.
echo /sbin/modprobe >/proc/sys/kernel/modprobe
link() { # NAMESPACE DEVICE NODE-ADDRESS ADDRESS: a network with the node.
    ip link add "$2" type veth peer name eth0 netns "$1"
    ip address add "$3/24" dev "$2" && ip -n "$1" address add "$4/24" dev eth0
    ip link set "$2" up && ip -n "$1" link set eth0 up && ip -n "$1" link set lo up
    ip -n "$1" route add default via "$3"
}
link pod eth1 10.244.1.1 10.244.1.2
link dns eth2 10.0.0.1 $CLUSTER
ip address add fd00:244::1/64 dev eth1 nodad && ip -n pod address add fd00:244::2/64 dev eth0 nodad
ip -n pod -6 route add default via fd00:244::1
ip route add default via $CLUSTER
cat >/tmp/Corefile.cluster <<END
.:53 {
    bind $CLUSTER
    template IN A {
        answer "{{ .Name }} 60 IN A 192.0.2.2"
    }
}
END
ip netns exec dns nodens -localip=$CLUSTER -conf=/tmp/Corefile.cluster -basecorefile=/tmp/none -runtime-dir=/run/dns \
    -setupinterface=false -setupiptables=false -metrics-listen-address=127.0.0.1:0 >/tmp/log.cluster 2>&1 &
check 'a pod reaches the cluster DNS' within 20 is_answered_by cluster pod $CLUSTER
# kube-proxy.
nft -D SERVICE=$SERVICE -D CLUSTER=$CLUSTER -f /kube-proxy.nft
check 'a pod reaches the cluster DNS by its Service' within 20 is_answered_by cluster pod $SERVICE
check 'the node reaches the cluster DNS by its Service' within 20 is_answered_by cluster node $SERVICE

for kind in nft legacy; do
    export PATH=/$kind:/usr/sbin:/bin
    start "-$kind" -firewall=iptables -syncinterval=2s
    # Its own words first: programs that a test runs load modules, too.
    check "iptables-$kind: the rules of three addresses are set" \
        all 'within 30 has_said 36 "Added back nodelocaldns rule"' 'has_rules $kind 36'
    check "iptables-$kind: a dummy interface has the addresses of both families" \
        all 'ip -d link show dev nodelocaldns | grep -q " dummy "' 'has_address $LOCAL' 'has_address $SERVICE' 'has_address $LOCAL6'
    check "iptables-$kind: a pod and the node are answered on all addresses" \
        all 'within 20 is_answered_by nodens pod $LOCAL' 'is_answered_by nodens pod $SERVICE' 'is_answered_by nodens pod $LOCAL6' \
        'is_answered_by nodens node $LOCAL' 'is_answered_by nodens node $SERVICE' 'is_answered_by nodens node $LOCAL6' \
        'not is_tracked $LOCAL'
    check "iptables-$kind: what is asked of the cluster DNS comes back through it" \
        is_answered_by cluster pod $LOCAL web.cluster.local
    check "iptables-$kind: health answers on an IPv6 address" eval 'wget -qO - http://[$LOCAL6]:8080/health | grep -q OK'
    /$kind/iptables -t raw -F && /$kind/ip6tables -t filter -F
    check "iptables-$kind: rules that are flushed come back" within 30 has_rules $kind 36
    check "iptables-$kind: SIGTERM removes rules and interface" \
        all 'stop TERM' 'has_rules $kind 0' 'not has_interface' 'is_answered_by cluster pod $SERVICE'

    start "-$kind-killed" -firewall=iptables
    within 30 has_rules $kind 36
    stop KILL
    check "iptables-$kind: SIGKILL leaves rules and interface" all 'has_rules $kind 36' 'has_address $LOCAL6'
    start "-$kind-next" -firewall=iptables
    check "iptables-$kind: the next one serves with what it finds" \
        all 'within 20 is_answered_by nodens pod $SERVICE' 'has_rules $kind 36' 'not says -$kind-next "Added interface"'
    check "iptables-$kind: cleanup touches nothing that serves" \
        all 'nodens cleanup --yes; [ $? = 75 ]' 'has_rules $kind 36' 'has_address $LOCAL'
    stop KILL
    check "iptables-$kind: cleanup removes what is left, and then finds nothing" \
        all 'nodens cleanup >/tmp/left; [ $? = 1 ]' 'has_rules $kind 36' 'nodens cleanup --yes' 'has_rules $kind 0' \
        'not has_interface' 'nodens cleanup | grep -q "nothing is left"'

    start "-$kind-guarded" -firewall=iptables -guardian -pidfile=/tmp/served-$kind
    check "iptables-$kind: a guardian removes the rules of a server that is killed, and the cluster DNS answers" \
        all 'within 30 has_said 36 "Added back nodelocaldns rule"' 'is_answered_by nodens pod $SERVICE' \
        'within 10 test -s /tmp/served-$kind' 'kill -s KILL $(cat /tmp/served-$kind)' 'within 30 has_rules $kind 0' \
        'is_answered_by cluster pod $SERVICE' 'wait "$pid"; [ $? = 137 ]' 'nodens cleanup --yes' 'not has_interface'
done
export PATH=/usr/sbin:/bin

# No iptables programs from here on.
start 10
check 'without iptables auto is nftables and the table is owned' \
    all 'within 20 says 10 "in nftables: there is no program iptables"' 'within 20 has_table nodens' \
    'nft list table inet nodens | grep -q "flags owner"'
check 'nftables: a pod and the node are answered on all addresses' \
    all 'within 20 is_answered_by nodens pod $LOCAL' 'is_answered_by nodens pod $SERVICE' 'is_answered_by nodens pod $LOCAL6' \
    'is_answered_by nodens node $LOCAL' 'is_answered_by nodens node $SERVICE' 'is_answered_by nodens node $LOCAL6'
ip address del $SERVICE/32 dev nodelocaldns
check 'nftables: queries are not tracked' not is_tracked $LOCAL
check 'an address that another program removes is back' within 10 has_address $SERVICE
ip address del $LOCAL6/128 dev nodelocaldns
check 'an IPv6 address that another program removes is back' within 10 has_address $LOCAL6
ip link del nodelocaldns
check 'an interface that another program removes is back with its addresses' \
    within 10 all 'has_address $LOCAL' 'has_address $SERVICE' 'has_address $LOCAL6'
check 'on the interface that is back queries are answered' \
    all 'within 10 is_answered_by nodens pod $LOCAL6' 'is_answered_by nodens pod $SERVICE' 'metric nodens_node_repaired_total 6'
ip link set nodelocaldns down
check 'an interface that another program sets down answers on IPv6 again' \
    all 'within 10 eval "ip link show dev nodelocaldns | grep -q [,\<]UP"' 'within 10 has_address $LOCAL6' 'within 10 is_answered_by nodens pod $LOCAL6'
stop KILL
check 'nftables: after SIGKILL the table is gone and the cluster DNS answers' \
    all 'within 10 not has_table nodens' 'is_answered_by cluster pod $SERVICE' 'has_address $LOCAL'
start 11
check 'nftables: the next one serves with the interface that it finds' \
    all 'within 20 has_table nodens' 'within 20 is_answered_by nodens pod $SERVICE' 'not says 11 "Added interface"'
check 'nftables: SIGTERM removes table and interface' \
    all 'stop TERM' 'not has_table nodens' 'not has_interface' 'is_answered_by cluster pod $SERVICE'
start 12
within 20 has_table nodens
stop KILL
check 'nftables: cleanup removes the interface' all 'within 10 not has_table nodens' 'nodens cleanup --yes' 'not has_interface'

# An interface of that name with an address of somebody else.
ip link add nodelocaldns type dummy && ip address add 192.0.2.77/32 dev nodelocaldns && ip link set nodelocaldns up
start 13
check 'an interface of others is used, told of and left' \
    all 'within 20 is_answered_by nodens pod $LOCAL' 'says 13 "has addresses of others: it stays at the end"' \
    'metric "nodens_node_trouble_total{reason=\"link_of_others\"}" 1' 'stop TERM' 'has_address 192.0.2.77' 'not has_address $LOCAL'
ip link del nodelocaldns

# kube-proxy in IPVS mode: the Service's address is on its own interface, and IPVS has its queries.
nft delete table ip kube-proxy
ip link add kube-ipvs0 type dummy && ip address add $SERVICE/32 dev kube-ipvs0
for protocol in -u -t; do
    ipvsadm -A $protocol $SERVICE:53 -s rr && ipvsadm -a $protocol $SERVICE:53 -r $CLUSTER:53 -m
done
check 'IPVS: a pod reaches the cluster DNS by its Service' within 20 is_answered_by cluster pod $SERVICE
BIND="$LOCAL $LOCAL6" start 14
check 'IPVS: on the link-local address nodens answers, and on the Service still the cluster DNS' \
    all 'within 20 is_answered_by nodens pod $LOCAL' 'is_answered_by nodens pod $LOCAL6' 'is_answered_by cluster pod $SERVICE'
check 'IPVS: at the end the interface of kube-proxy is as it was' \
    all 'stop TERM' 'not has_interface' 'has_address $SERVICE kube-ipvs0' 'is_answered_by cluster pod $SERVICE'
BIND="$LOCAL $LOCAL6 $INNER $INNER6" UPSTREAM=$SERVICE \
    start 15 -service-rewrite=$SERVICE=$INNER,$SERVICE6=$INNER6
check 'IPVS: with -service-rewrite nodens answers pods on the Service, over UDP and TCP' \
    all 'within 20 has_table nodens' 'within 20 is_answered_by nodens pod $SERVICE' 'over_tcp pod $SERVICE c0000201' \
    'is_answered_by nodens pod $LOCAL' 'is_answered_by nodens node $LOCAL' 'is_answered_by nodens node $INNER'
check 'IPVS: the same for a Service with an IPv6 address' \
    all 'is_answered_by nodens pod $SERVICE6' 'over_tcp pod $SERVICE6 c0000201' 'is_answered_by nodens node $INNER6'
check 'IPVS: what is asked on the Service is not tracked' \
    all 'not is_tracked $INNER' 'not is_tracked "[0:]*fd00[0:]*b"'
check 'IPVS: the node and nodens itself reach the cluster DNS by the Service' \
    all 'is_answered_by cluster node $SERVICE' 'is_answered_by cluster pod $SERVICE fresh.cluster.local'
stop KILL
check 'IPVS: after SIGKILL the cluster DNS answers on the Service' \
    all 'within 10 not has_table nodens' 'within 10 is_answered_by cluster pod $SERVICE'
nodens cleanup --yes

echo end
poweroff -f
