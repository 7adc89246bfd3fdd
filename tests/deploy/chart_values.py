"""Values of the chart: those that people bring, and those that the checks render it with."""

# The values of the node-local-dns chart in widest use, deliveryhero's, which people bring along.
DE_FACTO = """image.repository image.tag imagePullSecrets nameOverride fullnameOverride
    config.dnsDomain config.dnsServer config.localDns config.customUpstreamsvc config.upstreamServiceSelector
    config.bindIp config.commProtocol config.enableLogging config.noIPv6Lookups config.cacheTTL
    config.prefetch.enabled config.prefetch.amount config.prefetch.duration config.prefetch.percentage
    config.serveStale.enabled config.serveStale.duration config.serveStale.mode
    config.healthPort config.setupInterface config.setupIptables config.skipTeardown config.extraServerBlocks
    config.customConfig config.port.number config.port.tcp config.port.udp config.upstreamServers
    config.upstreamForwardConfig serviceAccount.create serviceAccount.annotations serviceAccount.name
    service.annotations podAnnotations podLabels configMapAnnotations configMapLabels daemonsetAnnotations
    daemonsetLabels updateStrategy initContainers securityContext serviceMonitor.enabled serviceMonitor.labels
    serviceMonitor.path serviceMonitor.honorLabels serviceMonitor.interval serviceMonitor.scrapeTimeout
    serviceMonitor.metricRelabelings serviceMonitor.relabelings serviceMonitor.namePrefix
    serviceMonitor.prometheusNamespace dashboard.enabled dashboard.namespace dashboard.label
    dashboard.annotations resources livenessProbe lifecycle resizePolicy affinity prometheusScraping.enabled
    tolerations""".split()

# The values that the chart is rendered with, each a way to use it.
VALUES = {
    "as it is": {},
    "no rules": {"config": {"setupIptables": False, "setupInterface": False}},
    "ipvs": {"config": {"dnsServer": "", "customUpstreamsvc": "kube-dns"}},
    "both families": {"config": {"localDns": "169.254.20.10,fd00:169:254:20::10", "dnsServer": "10.96.0.10,fd00:10:96::a"}},
    "IPv6 alone": {"config": {"localDns": "fd00:169:254:20::10", "dnsServer": "fd00:10:96::a"}},
    "everything in the Corefile": {
        "config": {
            "enableLogging": True,
            "noIPv6Lookups": True,
            "commProtocol": "prefer_udp",
            "cacheTTL": 60,
            "prefetch": {"enabled": True},
            "serveStale": {"enabled": True, "mode": "verify"},
            "upstreamServers": ["192.0.2.1", "tls://192.0.2.2"],
            "upstreamForwardConfig": "max_concurrent 1000\npolicy sequential",
            "extraServerBlocks": "example.org:53 {\n    bind 169.254.20.10 10.96.0.10\n    forward . 192.0.2.3\n}\n",
        }
    },
    "rules by iptables": {"config": {"firewall": "iptables"}},
    "values of another chart": {
        "config": {
            "bindIp": False,
            "port": {"number": 53, "tcp": "dns-tcp", "udp": "dns"},
            "upstreamServers": "__PILLAR__UPSTREAM__SERVERS__",
            "upstreamForwardConfig": {"one": "max_concurrent 1000", "two": "policy sequential"},
        },
        "configMapLabels": {"o": "p"},
        "configMapAnnotations": {"q": "r"},
        "securityContext": {"capabilities": {"add": ["NET_ADMIN"]}},
        "livenessProbe": {"httpGet": {"path": "/health"}, "initialDelaySeconds": 60, "periodSeconds": 10},
        "resources": {"requests": {"cpu": "25m", "memory": "128Mi"}, "limits": {"memory": "128Mi"}},
        "serviceMonitor": {"enabled": True, "namePrefix": "prometheus", "prometheusNamespace": "monitoring", "honorLabels": True},
    },
    "a Corefile of one's own": {"config": {"customConfig": ".:53 {\n    forward . 192.0.2.1\n}\n"}},
    "everything around it": {
        "image": {"tag": "1.2.3", "pullPolicy": "Always"},
        "imagePullSecrets": [{"name": "registry"}],
        "fullnameOverride": "dns-cache",
        "serviceAccount": {"annotations": {"a": "b"}},
        "service": {"annotations": {"c": "d"}},
        "daemonsetLabels": {"e": "f"},
        "daemonsetAnnotations": {"g": "h"},
        "podLabels": {"i": "j"},
        "podAnnotations": {"k": "l"},
        "initContainers": [{"name": "wait", "image": "example.org/wait:1"}],
        "securityContext": {"runAsNonRoot": False},
        "serviceMonitor": {"enabled": True, "labels": {"m": "n"}, "scrapeTimeout": "10s"},
        "podMonitor": {"enabled": True},
        "prometheusRule": {"enabled": True, "labels": {"release": "prometheus"}},
        "dashboard": {"enabled": True},
        "lifecycle": {"preStop": {"exec": {"command": ["/nodens", "version"]}}},
        "affinity": {"nodeAffinity": {}},
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "extraArgs": ["-log-format=json"],
    },
}
