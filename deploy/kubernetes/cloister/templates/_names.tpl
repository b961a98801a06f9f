{{/* SPDX-License-Identifier: Apache-2.0 */}}
{{- define "cloister.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" }}{{ end -}}
{{- end -}}

{{/* Of all pods of the release. */}}
{{- define "cloister.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "cloister.labels" -}}
{{ include "cloister.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "cloister.image" -}}
{{- with .Values.image }}{{ if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ .tag }}{{ end }}{{ end -}}
{{- end -}}

{{- define "cloister.serverCount" -}}
{{- .Values.servers.count | default (dig "servers" 1 .Values.job) | int -}}
{{- end -}}

{{- define "cloister.workerCount" -}}
{{- $count := .Values.workers.count | int -}}
{{- if not $count }}{{ $count = sub (dig "workers" 2 .Values.job | int) (.Values.workers.firstIndex | int) }}{{ end -}}
{{- if lt (int $count) 1 }}{{ fail "workers.firstIndex: the job has no worker of this number; give workers.count, or a job with more workers" }}{{ end -}}
{{- $count -}}
{{- end -}}

{{/* HOST:PORT of each server, in their order, as JSON. */}}
{{- define "cloister.addresses" -}}
{{- $addresses := .Values.servers.addresses -}}
{{- if .Values.servers.enabled }}
{{- if $addresses }}{{ fail "servers.addresses: expected none while servers.enabled is true" }}{{ end -}}
{{- $addresses = list -}}
{{- $name := include "cloister.name" . -}}
{{- range $index := until (include "cloister.serverCount" . | int) -}}
{{- $addresses = append $addresses (printf "%s-server-%d.%s-servers.%s.svc.%s:9000" $name $index $name $.Release.Namespace $.Values.clusterDomain) -}}
{{- end -}}
{{- else if not $addresses }}{{ fail "servers.addresses: expected the address of each server while servers.enabled is false" }}{{ end -}}
{{- $addresses | toJson -}}
{{- end -}}
