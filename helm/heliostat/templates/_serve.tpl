{{/* The spec as Serve's config, with the same applications as deployments/serve_config.py. Rendered as JSON,
     because YAML would write a million as 1e+06, which is no integer to the spec. */}}
{{- define "heliostat.serveConfig" -}}
{{- $shape := .root.Files.Get "files/spec.json" | fromJson -}}
{{- $applications := list -}}
{{- range $role := list "prefill" "decode" -}}
{{- range $name, $pool := index $.spec $role -}}
{{- $deployment := printf "%s-%s" $role $name -}}
{{- $span := include "heliostat.span" (dict "root" $.root "pool" $pool) | fromJson -}}
{{- $args := dict "role" $role "name" $name "family" $.spec.family "transfer" $.spec.transfer "pool" (include "heliostat.inside" (dict "pool" $pool "outside" $shape.outside) | fromJson) -}}
{{- $drain := dig "drain_s" $shape.spec.prefill.sections.drain_s.default $pool -}}
{{- $scale := dict "name" $deployment "num_replicas" $span.min "graceful_shutdown_timeout_s" $drain -}}
{{- $applications = append $applications (dict "name" (printf "heliostat-%s" $deployment) "route_prefix" nil "import_path" "deployments.app:build_pool" "args" $args "deployments" (list $scale)) -}}
{{- end -}}
{{- end -}}
{{- $replicas := dig "router" "replicas" $shape.spec.router.section.replicas.default .spec -}}
{{- $routers := dict "name" "router" "num_replicas" $replicas "graceful_shutdown_timeout_s" (include "heliostat.longest" . | float64) -}}
{{- $applications = append $applications (dict "name" "heliostat" "route_prefix" "/" "import_path" "deployments.app:build_router" "args" .spec "deployments" (list $routers)) -}}
{{- dict "proxy_location" "EveryNode" "http_options" (dict "host" "0.0.0.0" "port" 8000) "applications" $applications | toPrettyJson -}}
{{- end -}}

{{/* {pool, outside} → what the pool's replicas are made from, as JSON. */}}
{{- define "heliostat.inside" -}}
{{- $inside := dict -}}
{{- range $key, $value := .pool -}}
{{- if not (has $key $.outside) -}}
{{- $_ := set $inside $key $value -}}
{{- end -}}
{{- end -}}
{{- toJson $inside -}}
{{- end -}}
