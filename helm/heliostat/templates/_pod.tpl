{{/* What all pods of the Ray cluster have in common. */}}

{{/* How Serve runs, the same in each process of the cluster (docs/kubernetes.md says why). */}}
{{- define "heliostat.env" -}}
- {name: RAY_SERVE_ENABLE_HA_PROXY, value: "1"}
- {name: RAY_SERVE_THROUGHPUT_OPTIMIZED, value: "1"}
- {name: RAY_SERVE_HAPROXY_BINARY_PATH, value: /opt/venv/bin/heliostat-haproxy}
- {name: RAY_SERVE_HAPROXY_MAXCONN, value: "16384"}
- {name: RAY_SERVE_HAPROXY_NBTHREAD, value: "2"}
- {name: RAY_SERVE_HAPROXY_STATS_PORT, value: "8404"}
- {name: RAY_SERVE_HAPROXY_METRICS_PORT, value: "9101"}
# HAProxy takes a new configuration in a new process; the old one would cut its streams after 120 s.
- {name: RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S, value: {{ include "heliostat.longest" . | float64 | ceil | int | quote }}}
- {name: RAY_USAGE_STATS_ENABLED, value: "0"}
- {name: HF_HOME, value: /cache}
{{- if include "heliostat.hubSecret" .root }}
- {name: HF_TOKEN_PATH, value: /etc/heliostat/hub/token}
{{- end }}
{{- if include "heliostat.apiKeysSecret" .root }}
- {name: HELIOSTAT_API_KEYS_FILE, value: /etc/heliostat/api-keys/keys}
{{- end }}
{{- if eq (dig "transfer" "connector" "name" "" .spec) "NixlConnector" }}
# vLLM's NixlConnector offers KV at this address, on this port: one replica a pod.
- {name: VLLM_NIXL_SIDE_CHANNEL_HOST, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
- {name: VLLM_NIXL_SIDE_CHANNEL_PORT, value: "5600"}
{{- end }}
{{- with .root.Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* The root file system is read-only; these places are not. */}}
{{- define "heliostat.mounts" -}}
- {name: tmp, mountPath: /tmp}
- {name: home, mountPath: /home/heliostat}
- {name: shm, mountPath: /dev/shm}
- {name: cache, mountPath: /cache}
{{- if or .root.Values.weights.existingClaim .root.Values.weights.hostPath }}
- {name: weights, mountPath: {{ .root.Values.weights.mountPath }}, readOnly: true}
{{- end }}
{{- if include "heliostat.hubSecret" .root }}
- {name: hub, mountPath: /etc/heliostat/hub, readOnly: true}
{{- end }}
{{- if and .router (include "heliostat.apiKeysSecret" .root) }}
- {name: api-keys, mountPath: /etc/heliostat/api-keys, readOnly: true}
{{- end }}
{{- with .root.Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "heliostat.volumes" -}}
{{- $values := .root.Values -}}
- {name: tmp, emptyDir: {}}
- {name: home, emptyDir: {}}
- {name: shm, emptyDir: {medium: Memory, sizeLimit: {{ .shmMib }}Mi}}
- name: cache
  {{- if eq $values.cache.kind "claim" }}
  persistentVolumeClaim: {claimName: {{ include "heliostat.cacheClaim" .root }}}
  {{- else if eq $values.cache.kind "hostPath" }}
  hostPath: {path: {{ $values.cache.hostPath }}, type: DirectoryOrCreate}
  {{- else }}
  emptyDir: {sizeLimit: {{ $values.cache.size }}}
  {{- end }}
{{- if $values.weights.existingClaim }}
- {name: weights, persistentVolumeClaim: {claimName: {{ $values.weights.existingClaim }}, readOnly: true}}
{{- else if $values.weights.hostPath }}
- {name: weights, hostPath: {path: {{ $values.weights.hostPath }}, type: Directory}}
{{- end }}
{{- with include "heliostat.hubSecret" .root }}
- {name: hub, secret: {secretName: {{ . }}, items: [{key: {{ $values.hub.key }}, path: token}], defaultMode: 288}}
{{- end }}
{{- if .router }}
{{- with include "heliostat.apiKeysSecret" .root }}
- {name: api-keys, secret: {secretName: {{ . }}, items: [{key: {{ $values.apiKeys.key }}, path: keys}], defaultMode: 288}}
{{- end }}
{{- end }}
{{- with $values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* {root, settings, component} → the parts of a pod that say where it runs. */}}
{{- define "heliostat.scheduling" -}}
serviceAccountName: {{ include "heliostat.serviceAccount" .root }}
automountServiceAccountToken: {{ .token }}
enableServiceLinks: false
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets: {{ toJson . }}
{{- end }}
securityContext: {{ toJson .root.Values.podSecurityContext }}
{{- range $key := list "nodeSelector" "tolerations" "affinity" "priorityClassName" "runtimeClassName" }}
{{- with index $.settings $key }}
{{ $key }}: {{ toJson . }}
{{- end }}
{{- end }}
{{- with .settings.topologySpreadConstraints }}
topologySpreadConstraints: {{ toJson . }}
{{- end }}
{{- end -}}

{{- define "heliostat.podMetadata" -}}
labels:
  {{- include "heliostat.podLabels" .root | nindent 2 }}
  app.kubernetes.io/component: {{ .component }}
  {{- with .root.Values.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with merge (deepCopy (default dict .settings.annotations)) .root.Values.podAnnotations }}
annotations: {{ toJson . }}
{{- end }}
{{- end -}}
