{{/* SPDX-License-Identifier: Apache-2.0 */}}
{{/* Servers or workers: the same pod, with another name and number. */}}
{{- define "cloister.party" -}}
{{- $root := .root -}}
{{- $values := $root.Values -}}
{{- $party := .party -}}
{{- $own := .values -}}
{{- $name := include "cloister.name" $root -}}
{{- $isWorker := eq $party "worker" -}}
{{- $synthetic := and $isWorker (eq $values.data.source "synthetic") -}}
apiVersion: apps/v1
kind: StatefulSet
metadata:
  name: {{ $name }}-{{ $party }}
  labels:
    {{- include "cloister.labels" $root | nindent 4 }}
    app.kubernetes.io/component: {{ $party }}
spec:
  serviceName: {{ $name }}-{{ $party }}s
  replicas: {{ .count }}
  # Servers wait for each other, workers for servers: all start at once. Updates go one by one.
  podManagementPolicy: Parallel
  updateStrategy:
    type: RollingUpdate
  # Nothing that was learnt is deleted with the release.
  persistentVolumeClaimRetentionPolicy:
    whenDeleted: Retain
    whenScaled: Retain
  selector:
    matchLabels:
      {{- include "cloister.selector" $root | nindent 6 }}
      app.kubernetes.io/component: {{ $party }}
  template:
    metadata:
      labels:
        {{- include "cloister.selector" $root | nindent 8 }}
        app.kubernetes.io/component: {{ $party }}
      annotations:
        # Another job or deployment starts the pods anew.
        checksum/configuration: {{ include (print $root.Template.BasePath "/configuration.yaml") $root | sha256sum | trunc 32 }}
        {{- with $own.annotations }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    spec:
      {{- include "cloister.podSecurity" $root | nindent 6 }}
      terminationGracePeriodSeconds: {{ $values.terminationGracePeriodSeconds }}
      initContainers:
        - name: prepare
          {{- include "cloister.containerSecurity" $root | nindent 10 }}
          command: [sh, /etc/cloister/prepare.sh]
          env:
            {{- include "cloister.identity" . | nindent 12 }}
            - name: WANTED_PLATFORM
              value: {{ ternary "simulated" "enclave" (eq $values.platform "simulated") }}
            {{- if $synthetic }}
            - name: SYNTHETIC_RECORDS
              value: {{ $values.data.syntheticRecords | int | quote }}
            {{- end }}
          resources:
            requests: { cpu: 100m, memory: 512Mi }
            limits: { memory: 512Mi }
          volumeMounts:
            {{- include "cloister.mounts" (dict "root" $root) | nindent 12 }}
            {{- if $synthetic }}
            - name: data
              mountPath: /dataset
            {{- end }}
        {{- if and (eq $values.platform "sgx") (eq $values.sgx.aesmd "sidecar") }}
        - name: aesmd
          # Stays: it makes quotes of the enclave beside it.
          restartPolicy: Always
          {{- include "cloister.containerSecurity" $root | nindent 10 }}
          command: [/opt/intel/sgx-aesm-service/aesm/aesm_service, --no-daemon]
          env:
            - name: LD_LIBRARY_PATH
              value: /opt/intel/sgx-aesm-service/aesm
          startupProbe:
            exec:
              command: [test, -S, /var/run/aesmd/aesm.socket]
            periodSeconds: 2
            failureThreshold: 30
          resources:
            {{- include "cloister.resources" (dict "root" $root "epcMiB" 64 "resources" (dict "requests" (dict "cpu" "50m" "memory" "64Mi") "limits" (dict "memory" "256Mi"))) | nindent 12 }}
          volumeMounts:
            - name: aesmd
              mountPath: /var/run/aesmd
            - name: aesmd-data
              mountPath: /var/opt/aesmd
            - name: tmp
              mountPath: /tmp
            - name: cloister
              mountPath: /etc/sgx_default_qcnl.conf
              subPath: qcnl.conf
              readOnly: true
        {{- end }}
      containers:
        - name: {{ $party }}
          {{- include "cloister.containerSecurity" $root | nindent 10 }}
          command: [sh, /etc/cloister/run.sh]
          env:
            {{- include "cloister.identity" . | nindent 12 }}
          ports:
            {{- if not $isWorker }}
            - { name: federation, containerPort: 9000 }
            {{- end }}
            - { name: health, containerPort: 9001 }
            {{- if $values.provisioning.enabled }}
            - { name: provisioning, containerPort: 9002 }
            {{- end }}
            {{- if $values.metrics.enabled }}
            - { name: metrics, containerPort: 9464 }
            {{- end }}
          startupProbe:
            grpc:
              port: 9001
            periodSeconds: 10
            timeoutSeconds: 5
            failureThreshold: {{ mul 6 $values.startupMinutes }}
          readinessProbe:
            grpc:
              port: 9001
            periodSeconds: 10
            timeoutSeconds: 5
          # Patient: an enclave that pages, or a long step, is no reason to begin anew.
          livenessProbe:
            grpc:
              port: 9001
            periodSeconds: 30
            timeoutSeconds: 20
            failureThreshold: 10
          resources:
            {{- include "cloister.resources" (dict "root" $root "epcMiB" $values.sgx.epcMiB "resources" $own.resources) | nindent 12 }}
          volumeMounts:
            {{- include "cloister.mounts" (dict "root" $root) | nindent 12 }}
            {{- if $isWorker }}
            - name: data
              mountPath: /dataset
              readOnly: true
              {{- if and (not $synthetic) $values.data.path }}
              subPath: {{ $values.data.path | quote }}
              {{- end }}
            {{- end }}
            {{- if eq $values.platform "sgx" }}
            - name: aesmd
              mountPath: /var/run/aesmd
            {{- end }}
      volumes:
        - name: cloister
          configMap:
            name: {{ $name }}
        - name: tmp
          emptyDir: {}
        - name: home
          emptyDir: {}
        {{- if $synthetic }}
        - name: data
          emptyDir: {}
        {{- else if and $isWorker (eq $values.data.source "claim") }}
        - name: data
          persistentVolumeClaim:
            claimName: {{ required "data.claim: expected the name of the volume claim that holds the data" $values.data.claim }}
            readOnly: true
        {{- end }}
        {{- if eq $values.platform "simulated" }}
        - name: platform
          persistentVolumeClaim:
            claimName: {{ $name }}-platform
        {{- else if eq $values.sgx.aesmd "sidecar" }}
        - name: aesmd
          emptyDir: {}
        - name: aesmd-data
          emptyDir: {}
        {{- else }}
        - name: aesmd
          hostPath:
            path: /var/run/aesmd
            type: Directory
        {{- end }}
      # A disturbance of one node takes no more than it must.
      topologySpreadConstraints:
        - maxSkew: 1
          topologyKey: kubernetes.io/hostname
          whenUnsatisfiable: ScheduleAnyway
          labelSelector:
            matchLabels:
              {{- include "cloister.selector" $root | nindent 14 }}
              app.kubernetes.io/component: {{ $party }}
      {{- with $own.nodeSelector }}
      nodeSelector:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $own.tolerations }}
      tolerations:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $own.affinity }}
      affinity:
        {{- toYaml . | nindent 8 }}
      {{- end }}
  volumeClaimTemplates:
    {{- include "cloister.claim" (dict "name" "run" "storage" $own.storage) | nindent 4 }}
    {{- if and $isWorker (eq $values.data.source "claim-per-worker") }}
    {{- include "cloister.claim" (dict "name" "data" "storage" $values.data.storage) | nindent 4 }}
    {{- end }}
{{- end -}}

{{- define "cloister.claim" -}}
- apiVersion: v1
  kind: PersistentVolumeClaim
  metadata:
    name: {{ .name }}
  spec:
    accessModes: [ReadWriteOnce]
    {{- with .storage.className }}
    storageClassName: {{ . }}
    {{- end }}
    resources:
      requests:
        storage: {{ .storage.size }}
{{- end -}}

{{/* Which of the job's servers or workers a pod is: its ordinal, from the first one here. */}}
{{- define "cloister.identity" -}}
- name: PARTY
  value: {{ .party }}
- name: POD_NAME
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
- name: FIRST_INDEX
  value: {{ .firstIndex | quote }}
{{- end -}}
