{{- define "gateway.name" -}}
{{- default .Release.Name .Values.nameOverride | trunc 52 | trimSuffix "-" -}}
{{- end -}}

{{- define "gateway.selector" -}}
app.kubernetes.io/name: model-serving-gateway
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "gateway.labels" -}}
{{ include "gateway.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "gateway.protected" -}}
{{- if not .Values.insecure -}}
{{- if not .Values.tls.secret -}}
{{- fail "nothing protects the gateway: name tls.secret with tls.clientCa or access.secret, or say insecure: true" -}}
{{- end -}}
{{- if not (or .Values.tls.clientCa .Values.access.secret) -}}
{{- fail "nobody has to say who he is: set tls.clientCa or access.secret, or say insecure: true" -}}
{{- end -}}
{{- end -}}
{{- if and .Values.tls.clientCa (not .Values.tls.secret) -}}
{{- fail "tls.clientCa needs tls.secret" -}}
{{- end -}}
{{- if and .Values.files.config (not .Values.files.configMap) -}}
{{- fail "files.config needs files.configMap, whose key it names" -}}
{{- end -}}
{{- end -}}
