{{/* Names. */}}
{{- define "nbi-upgrade.fullname" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "nbi-upgrade.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "nbi-upgrade.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "nbi-upgrade.secret" -}}
{{- default (include "nbi-upgrade.fullname" .) .Values.secrets.existing -}}
{{- end -}}

{{- define "nbi-upgrade.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "nbi-upgrade.labels" -}}
{{ include "nbi-upgrade.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "nbi-upgrade.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end -}}
{{- end -}}

{{/* A value as TOML writes it. Whole numbers reach a template as floating point and must not leave it so. */}}
{{- define "nbi-upgrade.toml-value" -}}
{{- if kindIs "string" . -}}
{{ toJson . }}
{{- else if kindIs "bool" . -}}
{{ . }}
{{- else if kindIs "slice" . -}}
[{{ range $index, $item := . }}{{ if $index }}, {{ end }}{{ include "nbi-upgrade.toml-value" $item }}{{ end }}]
{{- else if eq (floor .) (float64 .) -}}
{{ printf "%d" (int64 .) }}
{{- else -}}
{{ . }}
{{- end -}}
{{- end -}}

{{/* The configuration file: what the values say, and what the chart itself decides. */}}
{{- define "nbi-upgrade.config" -}}
{{- $own := dict "amqp" dict "nbi" dict "shutdown" (dict "grace" (printf "%ds" (int .Values.shutdownGraceSeconds))) -}}
{{- $secrets := "/run/secrets/nbi-upgrade" -}}
{{- $_ := set $own.amqp "url_file" (printf "%s/amqp-url" $secrets) -}}
{{- $_ := set $own.amqp "topology" (ternary "declare" "check" (eq .Values.topology.declare "worker")) -}}
{{- $_ := set $own.nbi "password_file" (printf "%s/nbi-password" $secrets) -}}
{{- range $part, $tls := .Values.tls -}}
{{- if $tls.existingSecret -}}
{{- $folder := printf "/etc/nbi-upgrade/tls/%s" $part -}}
{{- $_ := set (index $own $part) "ca_file" (printf "%s/ca.crt" $folder) -}}
{{- if $tls.clientCertificate -}}
{{- $_ := set (index $own $part) "client_cert_file" (printf "%s/tls.crt" $folder) -}}
{{- $_ := set (index $own $part) "client_key_file" (printf "%s/tls.key" $folder) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range $section, $keys := mergeOverwrite (deepCopy .Values.config) $own }}
[{{ $section }}]
{{- range $key, $value := $keys }}
{{ $key }} = {{ include "nbi-upgrade.toml-value" $value }}
{{- end }}
{{ end -}}
{{- end -}}

{{/* No process here needs a right. */}}
{{- define "nbi-upgrade.pod-security" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "nbi-upgrade.container-security" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* Volumes and mounts of worker and topology job; `broker` is the Secret with amqp-url. nbi-password is the worker's in both. */}}
{{- define "nbi-upgrade.volumes" -}}
- name: config
  configMap:
    name: {{ include "nbi-upgrade.fullname" .root }}
- name: secrets
  projected:
    defaultMode: 0440
    sources:
      - secret:
          name: {{ .broker }}
          items: [{ key: amqp-url, path: amqp-url }]
      - secret:
          name: {{ include "nbi-upgrade.secret" .root }}
          items: [{ key: nbi-password, path: nbi-password }]
{{- range $part, $tls := .root.Values.tls }}
{{- if $tls.existingSecret }}
- name: tls-{{ $part }}
  secret:
    secretName: {{ $tls.existingSecret }}
    defaultMode: 0440
{{- end }}
{{- end }}
{{- end -}}

{{/* Where a pod may run. */}}
{{- define "nbi-upgrade.placement" -}}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "nbi-upgrade.mounts" -}}
- name: config
  mountPath: /etc/nbi-upgrade/config
  readOnly: true
- name: secrets
  mountPath: /run/secrets/nbi-upgrade
  readOnly: true
{{- range $part, $tls := .Values.tls }}
{{- if $tls.existingSecret }}
- name: tls-{{ $part }}
  mountPath: /etc/nbi-upgrade/tls/{{ $part }}
  readOnly: true
{{- end }}
{{- end }}
{{- end -}}
