"""Schemas of kinds of other projects, of the part that is used here."""

LABELS = {"type": "object", "additionalProperties": {"type": "string"}}
SELECTOR = {
    "type": "object",
    "additionalProperties": False,
    "required": ["matchLabels"],
    "properties": {"matchLabels": LABELS},
}

NAMESPACES = {
    "type": "object",
    "additionalProperties": False,
    "required": ["matchNames"],
    "properties": {"matchNames": {"type": "array", "items": {"type": "string"}}},
}


def endpoint(port: dict) -> dict:
    """An endpoint of a PodMonitor or ServiceMonitor, with its way to name a port."""
    return {
        "type": "object",
        "additionalProperties": False,
        "required": list(port),
        "properties": port
        | {
            "path": {"type": "string"},
            "interval": {"type": "string", "pattern": "^[0-9]+(ms|s|m|h)$"},
            "scrapeTimeout": {"type": "string"},
            "metricRelabelings": {"type": "array"},
            "relabelings": {"type": "array"},
            "honorLabels": {"type": "boolean"},
        },
    }


def monitor(endpoints: str, port: dict) -> dict:
    return {
        "type": "object",
        "additionalProperties": False,
        "required": ["selector", endpoints],
        "properties": {
            "jobLabel": {"type": "string"},
            "selector": SELECTOR,
            "namespaceSelector": NAMESPACES,
            endpoints: {"type": "array", "minItems": 1, "items": endpoint(port)},
        },
    }


REDIRECT_PORT = {
    "type": "object",
    "additionalProperties": False,
    "required": ["port", "protocol"],
    "properties": {
        "port": {"type": "string", "pattern": "^[0-9]+$"},
        "name": {"type": "string"},
        "protocol": {"enum": ["UDP", "TCP"]},
    },
}
OTHERS = {
    ("monitoring.coreos.com/v1", "PodMonitor"): monitor(
        "podMetricsEndpoints", {"portNumber": {"type": "integer"}}
    ),
    ("monitoring.coreos.com/v1", "ServiceMonitor"): monitor("endpoints", {"port": {"type": "string"}}),
    ("cilium.io/v2", "CiliumLocalRedirectPolicy"): {
        "type": "object",
        "additionalProperties": False,
        "required": ["redirectFrontend", "redirectBackend"],
        "properties": {
            "redirectFrontend": {
                "type": "object",
                "additionalProperties": False,
                "required": ["serviceMatcher"],
                "properties": {
                    "serviceMatcher": {
                        "type": "object",
                        "additionalProperties": False,
                        "required": ["serviceName", "namespace"],
                        "properties": {
                            "serviceName": {"type": "string"},
                            "namespace": {"type": "string"},
                        },
                    }
                },
            },
            "redirectBackend": {
                "type": "object",
                "additionalProperties": False,
                "required": ["localEndpointSelector", "toPorts"],
                "properties": {
                    "localEndpointSelector": SELECTOR,
                    "toPorts": {"type": "array", "items": REDIRECT_PORT},
                },
            },
        },
    },
    ("monitoring.coreos.com/v1", "PrometheusRule"): {
        "type": "object",
        "additionalProperties": False,
        "required": ["groups"],
        "properties": {"groups": {"type": "array", "minItems": 1}},
    },
}
