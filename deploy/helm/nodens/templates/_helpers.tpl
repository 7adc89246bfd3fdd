{{- define "nodens.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "nodens.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- else if contains (include "nodens.name" .) .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "nodens.name" .) | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "nodens.selectorLabels" -}}
k8s-app: {{ include "nodens.fullname" . }}
app.kubernetes.io/name: {{ include "nodens.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "nodens.labels" -}}
{{ include "nodens.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/component: dns-cache
app.kubernetes.io/part-of: cluster-dns
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | quote }}
{{- end -}}

{{- define "nodens.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "nodens.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* The Service whose address __PILLAR__CLUSTER__DNS__ stands for. */}}
{{- define "nodens.upstreamService" -}}
{{- default (printf "%s-upstream" (include "nodens.fullname" .)) .Values.config.customUpstreamsvc -}}
{{- end -}}

{{/* The first address of config.localDns: probes ask it. */}}
{{- define "nodens.probeAddress" -}}
{{- splitList "," .Values.config.localDns | first | trim -}}
{{- end -}}

{{- define "nodens.healthAddress" -}}
{{- $address := include "nodens.probeAddress" . -}}
{{- if contains ":" $address -}}[{{ $address }}]{{- else -}}{{ $address }}{{- end -}}
{{- end -}}

{{/* All addresses that are served, with commas. */}}
{{- define "nodens.localAddresses" -}}
{{- $addresses := list -}}
{{- range splitList "," .Values.config.localDns -}}{{- $addresses = append $addresses (trim .) -}}{{- end -}}
{{- if and .Values.config.setupIptables .Values.config.dnsServer -}}
{{- range splitList "," .Values.config.dnsServer -}}{{- $addresses = append $addresses (trim .) -}}{{- end -}}
{{- end -}}
{{- join "," $addresses -}}
{{- end -}}

{{- define "nodens.image" -}}
{{- $suffix := ternary "-iptables" "" (eq (include "nodens.firewall" .) "iptables") -}}
{{ .Values.image.repository }}:{{ default (print .Chart.AppVersion $suffix) .Values.image.tag }}
{{- end -}}

{{/* Who keeps the rules. */}}
{{- define "nodens.firewall" -}}
{{- ternary .Values.config.firewall "none" .Values.config.setupIptables -}}
{{- end -}}

{{/* Lines of a list, of a map's values, or of a text. */}}
{{- define "nodens.lines" -}}
{{- if kindIs "string" . -}}{{ trim . }}
{{- else -}}{{- $lines := list -}}{{- range . -}}{{- $lines = append $lines . -}}{{- end -}}{{ join "\n" $lines }}
{{- end -}}
{{- end -}}

{{/* What the server blocks of cluster names have in common. */}}
{{- define "nodens.cacheOptions" -}}
{{- if .Values.config.prefetch.enabled }}
prefetch {{ .Values.config.prefetch.amount }} {{ .Values.config.prefetch.duration }} {{ .Values.config.prefetch.percentage }}
{{- end }}
{{- if .Values.config.serveStale.enabled }}
serve_stale {{ .Values.config.serveStale.duration }} {{ .Values.config.serveStale.mode }}
{{- end }}
{{- end -}}

{{- define "nodens.commonDirectives" -}}
errors
{{- if .Values.config.enableLogging }}
log
{{- end }}
reload
loop
bind {{ if .Values.config.bindIp }}{{ include "nodens.localAddresses" . | replace "," " " }}{{ else }}0.0.0.0{{ end }}
prometheus :{{ .Values.config.port.metrics }}
{{- if .Values.config.noIPv6Lookups }}
template ANY AAAA {
    rcode NOERROR
}
{{- end }}
{{- end -}}

{{- define "nodens.corefile" -}}
{{- $root := . -}}
{{- $options := include "nodens.cacheOptions" . | trim -}}
{{- $clusterForward := printf "forward . __PILLAR__CLUSTER__DNS__ {\n    %s\n}" .Values.config.commProtocol -}}
{{- range $zone := list .Values.config.dnsDomain "in-addr.arpa" "ip6.arpa" }}
{{ $zone }}:{{ $root.Values.config.port.number }} {
{{ include "nodens.commonDirectives" $root | indent 4 }}
{{- if eq $zone $root.Values.config.dnsDomain }}
    cache {
        success 9984 {{ $root.Values.config.cacheTTL }}
        denial 9984 5
        {{- if $options }}
{{ $options | indent 8 }}
        {{- end }}
    }
    health {{ include "nodens.healthAddress" $root }}:{{ $root.Values.config.healthPort }}
    ready {{ include "nodens.healthAddress" $root }}:{{ $root.Values.config.port.ready }}
{{- else }}
    cache {{ $root.Values.config.cacheTTL }}
{{- end }}
{{ $clusterForward | indent 4 }}
}
{{- end }}
.:{{ .Values.config.port.number }} {
{{ include "nodens.commonDirectives" . | indent 4 }}
    cache {{ .Values.config.cacheTTL }}{{ if $options }} {
{{ $options | indent 8 }}
    }{{ end }}
{{- $servers := "__PILLAR__UPSTREAM__SERVERS__" }}
{{- with .Values.config.upstreamServers }}{{ $servers = include "nodens.lines" . | replace "\n" " " }}{{ end }}
{{- with .Values.config.upstreamForwardConfig }}
    forward . {{ $servers }} {
{{ include "nodens.lines" . | indent 8 }}
    }
{{- else }}
    forward . {{ $servers }}
{{- end }}
}
{{- with .Values.config.extraServerBlocks }}
{{ . | trim }}
{{- end }}
{{- end -}}
