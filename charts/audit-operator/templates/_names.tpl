{{- define "image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- define "labels" -}}
app.kubernetes.io/name: audit-operator
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "selector" -}}
app.kubernetes.io/name: audit-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- /* No capability, no writable root, no user of the node. A program that needs more states it itself. */ -}}
{{- define "unprivileged" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
capabilities:
  drop: [ALL]
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- /* The Secrets that the controller makes for the receiver: those that the user has not named. */ -}}
{{- define "receiver-secrets" -}}
{{- if .Values.receiver.enabled }}
{{- $secrets := list }}
{{- if not .Values.receiver.tlsSecret }}{{ $secrets = append $secrets "tls" }}{{ end }}
{{- if not .Values.receiver.tokenSecret }}{{ $secrets = append $secrets "token" }}{{ end }}
{{- join "," $secrets }}
{{- end }}
{{- end }}

{{- /* The Secret with the certificate of the metrics. Empty: each program makes its own. */ -}}
{{- define "metrics-secret" -}}
{{- with .Values.metrics.secure }}{{ if .enabled }}{{ .tlsSecret }}{{ end }}{{ end }}
{{- end }}
