{{/* SPDX-License-Identifier: Apache-2.0 */}}
{{/* What all pods have: no token, no root, nothing more than restricted pod security allows. */}}
{{- define "cloister.podSecurity" -}}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
{{- if and (eq .Values.platform "sgx") .Values.sgx.deviceGroups }}
  supplementalGroups: {{ .Values.sgx.deviceGroups | toJson }}
{{- end }}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
{{- range . }}
  - name: {{ . }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "cloister.containerSecurity" -}}
image: {{ include "cloister.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  privileged: false
  capabilities:
    drop: [ALL]
{{- end -}}

{{/* What an enclave takes of its node, by the names of who made the device plugin. */}}
{{- define "cloister.sgxResources" -}}
{{- $epc := .epcMiB | int -}}
{{- with .root.Values.sgx -}}
{{- if eq .devicePlugin "intel" -}}
{{- dict "sgx.intel.com/enclave" "1" "sgx.intel.com/provision" "1" "sgx.intel.com/epc" (printf "%dMi" $epc) | toJson -}}
{{- else if eq .devicePlugin "azure" -}}
{{- dict "sgx.intel.com/epc" (printf "%dMi" $epc) | toJson -}}
{{- else if eq .devicePlugin "alibaba" -}}
{{- dict "alibabacloud.com/sgx_epc_MiB" (toString $epc) | toJson -}}
{{- else -}}
{{- .resources | toJson -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Requests and limits, with the devices in both, as Kubernetes wants it of devices. */}}
{{- define "cloister.resources" -}}
{{- $devices := dict -}}
{{- if eq .root.Values.platform "sgx" -}}
{{- $devices = include "cloister.sgxResources" . | fromJson -}}
{{- end -}}
{{- $requests := merge (deepCopy (.resources.requests | default dict)) $devices -}}
{{- $limits := merge (deepCopy (.resources.limits | default dict)) $devices -}}
{{- dict "requests" $requests "limits" $limits | toYaml -}}
{{- end -}}

{{/* Mounts of both the pod's first container and its role. */}}
{{- define "cloister.mounts" -}}
{{- $values := .root.Values -}}
- name: run
  mountPath: /{{ $values.workload }}
- name: cloister
  mountPath: /etc/cloister
  readOnly: true
- name: tmp
  mountPath: /tmp
- name: home
  mountPath: /var/lib/cloister
{{- if eq $values.platform "simulated" }}
- name: platform
  mountPath: /var/lib/cloister/platform
{{- end }}
{{- end -}}
