//! The Corefile from its template: the `__PILLAR__` variables and the stub domains.
//!
//! A pure function of the template's text, the node's values and the kube-dns ConfigMap. Stub
//! domains come out in alphabetical order, so that the same input gives the same octets and no
//! reload.

use super::kubedns::KubeDns;
use crate::plugin::Level;
use std::fmt::Write;
use std::net::IpAddr;

/// The cluster's DNS Service.
const CLUSTER: &str = "__PILLAR__CLUSTER__DNS__";

/// What `__PILLAR__UPSTREAM__SERVERS__` stands for when the ConfigMap names no upstreams.
const DEFAULT_UPSTREAMS: &str = "/etc/resolv.conf";

/// The upstreams of names outside of the cluster.
const UPSTREAMS: &str = "__PILLAR__UPSTREAM__SERVERS__";

/// The block of the stock template that asks the node's resolvers over TCP, octet by octet.
const TCP_BLOCK: &str =
    "\n    forward . __PILLAR__UPSTREAM__SERVERS__ {\n            force_tcp\n    }\n";

/// The values of this node, fixed from start to exit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeValues {
    /// `-localip` as given: `__PILLAR__LOCAL__DNS__`, commas turned into spaces.
    pub local: String,
    /// The cluster's DNS Service: `__PILLAR__CLUSTER__DNS__`; `<nil>` when unknown.
    pub cluster_dns: Result<IpAddr, UnknownService>,
    /// `-prometheus-listen-address`: `__PROMETHEUS__ENDPOINT__`.
    pub prometheus: String,
    /// `-dns.port`: the port of stub domains.
    pub dns_port: u16,
}

/// A Service whose cluster IP the environment does not tell. Its text is node-cache's line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "Unable to lookup IP address of Upstream service {service}, env ${variable} `{}`",
    .value.as_deref().unwrap_or_default()
)]
pub struct UnknownService {
    service: String,
    variable: String,
    value: Option<String>,
}

impl UnknownService {
    /// What that means for a template which needs the address, and what to do.
    fn consequence(&self) -> String {
        let UnknownService { service, variable, value } = self;
        let what = match value {
            None => "is not set".to_owned(),
            Some(value) => format!("is {}, which is no IP address", crate::corefile::quote(value)),
        };
        format!(
            "{CLUSTER} is <nil> in the Corefile: the environment variable {variable} {what}. \
             Kubernetes sets it when the Service {service} with a cluster IP is older than the pod \
             and in its namespace: restart the pod, or name another Service with -upstreamsvc"
        )
    }
}

/// A Corefile, and what was noticed while making it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// The Corefile.
    pub text: String,
    /// The upstreams that the template's variable was replaced by.
    pub upstreams: String,
    /// Lines for the operator.
    pub lines: Vec<(Level, String)>,
}

/// Fills in the template. `config` must have passed [`KubeDns::check_nameservers`].
pub fn render(base: &str, values: &NodeValues, config: &KubeDns) -> Rendered {
    let local = values.local.replace(',', " ");
    let mut lines = Vec::new();
    let cluster = match &values.cluster_dns {
        Ok(address) => address.to_canonical().to_string(),
        Err(unknown) => {
            if base.contains(CLUSTER) {
                lines.push((Level::Error, unknown.consequence()));
            }
            "<nil>".to_owned()
        }
    };
    let mut text = base.to_owned();
    let upstreams = if config.upstream_nameservers.is_empty() {
        DEFAULT_UPSTREAMS.to_owned()
    } else {
        let upstreams = config.upstream_nameservers.join(" ");
        // Upstreams of the operator's own may not speak TCP.
        text = text.replace(TCP_BLOCK, &format!("\n    forward . {upstreams}\n"));
        if text.contains(UPSTREAMS) {
            let warning =
                "Did not find TCP upstream block to replace, assuming upstreams already use UDP.";
            lines.push((Level::Warning, warning.to_owned()));
        }
        upstreams
    };
    for (variable, value) in [
        (UPSTREAMS, upstreams.as_str()),
        (CLUSTER, &cluster),
        ("__PILLAR__LOCAL__DNS__", &local),
        // Only deployers know it; what they left in is nothing.
        ("__PILLAR__DNS__SERVER__", ""),
        ("__PROMETHEUS__ENDPOINT__", &values.prometheus),
    ] {
        text = text.replace(variable, value);
    }
    let port = values.dns_port;
    for (domain, servers) in &config.stub_domains {
        let servers = servers.join(" ");
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "\n{domain}:{port} {{\n    errors\n    cache 30\n    bind {local}\n    forward . {servers}\n}}\n"
        );
    }
    Rendered { text, upstreams, lines }
}

/// The name of the environment variable with a Service's cluster IP: `my-dns` gives
/// `MY_DNS_SERVICE_HOST`.
pub fn service_variable(service: &str) -> String {
    service.replace('-', "_").to_uppercase() + "_SERVICE_HOST"
}

/// The cluster IP of a Service from its environment variable; without one the template gets
/// `<nil>`.
///
/// # Errors
///
/// The variable is not set, or no address.
pub fn cluster_dns(
    service: &str,
    variable: impl FnOnce(&str) -> Option<String>,
) -> Result<IpAddr, UnknownService> {
    let name = service_variable(service);
    let value = variable(&name);
    match value.as_deref().map(str::parse) {
        Some(Ok(address)) => Ok(address),
        _ => Err(UnknownService { service: service.to_owned(), variable: name, value }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values() -> NodeValues {
        NodeValues {
            local: "169.254.20.10,10.0.0.10".to_owned(),
            cluster_dns: Ok("10.0.0.11".parse().unwrap()),
            prometheus: ":9253".to_owned(),
            dns_port: 1053,
        }
    }

    fn config(upstreams: &[&str], stubs: &[(&str, &[&str])]) -> KubeDns {
        let owned = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect();
        KubeDns {
            upstream_nameservers: owned(upstreams),
            stub_domains: stubs.iter().map(|(name, list)| ((*name).into(), owned(list))).collect(),
        }
    }

    #[test]
    fn every_variable_is_replaced_everywhere() {
        let base = "# __PILLAR__LOCAL__DNS__|__PILLAR__LOCAL__DNS__|__PILLAR__DNS__SERVER__|__PILLAR__DNS__DOMAIN__|__PILLAR__CLUSTER__DNS__|__PILLAR__UPSTREAM__SERVERS__|__PROMETHEUS__ENDPOINT__|__PILLAR__FOO__\n";
        assert_eq!(
            render(base, &values(), &KubeDns::default()).text,
            "# 169.254.20.10 10.0.0.10|169.254.20.10 10.0.0.10||__PILLAR__DNS__DOMAIN__|10.0.0.11|/etc/resolv.conf|:9253|__PILLAR__FOO__\n"
        );
    }

    #[test]
    fn an_unknown_service_is_nil_and_its_variable_is_named_where_it_is_needed() {
        for (value, what) in
            [(None, "is not set."), (Some("None"), "is \"None\", which is no IP address.")]
        {
            let cluster_dns = cluster_dns("my-dns", |_| value.map(str::to_owned));
            let values = NodeValues { cluster_dns, ..values() };
            let rendered = render("__PILLAR__CLUSTER__DNS__", &values, &KubeDns::default());
            assert_eq!(rendered.text, "<nil>");
            let [(Level::Error, line)] = &rendered.lines[..] else { panic!("{rendered:?}") };
            assert!(line.contains(&format!("variable MY_DNS_SERVICE_HOST {what}")), "{line}");
            assert!(render("", &values, &KubeDns::default()).lines.is_empty());
        }
    }

    #[test]
    fn own_upstreams_lose_force_tcp_in_the_stock_block_alone() {
        let stock = ".:53 {\n    errors\n    forward . __PILLAR__UPSTREAM__SERVERS__ {\n            force_tcp\n    }\n}\n";
        let own = config(&["1.1.1.1", "8.8.8.8:53"], &[]);
        let rendered = render(stock, &values(), &own);
        assert_eq!(rendered.text, ".:53 {\n    errors\n    forward . 1.1.1.1 8.8.8.8:53\n}\n");
        assert_eq!(rendered.lines, []);
        assert_eq!(rendered.upstreams, "1.1.1.1 8.8.8.8:53");
        let other = stock.replace("            force", "        force");
        let rendered = render(&other, &values(), &own);
        assert!(rendered.text.contains("forward . 1.1.1.1 8.8.8.8:53 {\n        force_tcp"));
        assert_eq!(rendered.lines.len(), 1);
        let resolv = render(stock, &values(), &KubeDns::default());
        assert!(resolv.text.contains("forward . /etc/resolv.conf {\n            force_tcp"));
    }

    #[test]
    fn stub_domains_follow_in_order() {
        let config = config(&[], &[("b.test", &["1.1.1.1"]), ("a.test", &["1.1.1.2", "[::1]:54"])]);
        assert_eq!(
            render("x\n", &values(), &config).text,
            "x\n\na.test:1053 {\n    errors\n    cache 30\n    bind 169.254.20.10 10.0.0.10\n    forward . 1.1.1.2 [::1]:54\n}\n\
             \nb.test:1053 {\n    errors\n    cache 30\n    bind 169.254.20.10 10.0.0.10\n    forward . 1.1.1.1\n}\n"
        );
    }

    #[test]
    fn the_service_comes_from_its_environment_variable() {
        let one = |name: &str| (name == "MY_DNS_SERVICE_HOST").then(|| "10.0.0.9".to_owned());
        assert_eq!(cluster_dns("my-dns", one), Ok("10.0.0.9".parse().unwrap()));
        assert_eq!(
            cluster_dns("kube-dns", |_| None).map_err(|unknown| unknown.to_string()),
            Err("Unable to lookup IP address of Upstream service kube-dns, env $KUBE_DNS_SERVICE_HOST ``".to_owned())
        );
        assert!(cluster_dns("x", |_| Some("not-an-ip".to_owned())).is_err());
    }
}
