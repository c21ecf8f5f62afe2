{{/* Names and labels. Pods get no label that KubeRay sets itself (app.kubernetes.io/name among them). */}}

{{/* 40 characters at most: KubeRay puts its own behind them. */}}
{{- define "heliostat.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- $full := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- default $full .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "heliostat.podLabels" -}}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/part-of: heliostat
{{- end -}}

{{- define "heliostat.labels" -}}
{{ include "heliostat.podLabels" . }}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride | trunc 63 }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* A pool's name where Kubernetes wants a DNS label: `my_pool` and `my.pool` must not meet in `my-pool`. */}}
{{- define "heliostat.dns" -}}
{{- if and (regexMatch "^[a-z0-9-]*$" .) (le (len .) 30) -}}
{{- . -}}
{{- else -}}
{{- printf "%s-%s" (regexReplaceAll "[^a-z0-9-]" . "-" | trunc 20 | trimSuffix "-") (sha256sum . | trunc 6) -}}
{{- end -}}
{{- end -}}

{{- define "heliostat.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "heliostat.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "heliostat.image" -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end -}}

{{/* The Service that KubeRay makes. */}}
{{- define "heliostat.service" -}}
{{- printf "%s-serve" (include "heliostat.fullname" .) -}}
{{- end -}}

{{- define "heliostat.hubSecret" -}}
{{- if .Values.hub.existingSecret -}}
{{- .Values.hub.existingSecret -}}
{{- else if .Values.hub.token -}}
{{- include "heliostat.fullname" . }}-hub
{{- end -}}
{{- end -}}

{{- define "heliostat.apiKeysSecret" -}}
{{- if .Values.apiKeys.existingSecret -}}
{{- .Values.apiKeys.existingSecret -}}
{{- else if .Values.apiKeys.keys -}}
{{- include "heliostat.fullname" . }}-api-keys
{{- end -}}
{{- end -}}

{{- define "heliostat.cacheClaim" -}}
{{- default (printf "%s-cache" (include "heliostat.fullname" .)) .Values.cache.existingClaim -}}
{{- end -}}
