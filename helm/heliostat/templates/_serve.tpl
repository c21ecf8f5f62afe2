{{/* The spec as Serve's config, with the same applications as deployments/serve_config.py. Rendered as JSON,
     because YAML would write a million as 1e+06, which is no integer to the spec. */}}
{{- define "heliostat.serveConfig" -}}
{{- $shape := .root.Files.Get "files/spec.json" | fromJson -}}
{{- $pool := $shape.spec.prefill.sections -}}
{{- $beside := dict -}}
{{- range $section, $required := $shape.beside -}}
{{- $kept := include "heliostat.without" (dict "value" (default dict (index $.spec $section)) "keys" (default dict (index $shape.not_of_pools $section)) "fields" (index $shape.spec $section).section) | fromJson -}}
{{- if or $required $kept -}}
{{- $_ := set $beside $section $kept -}}
{{- end -}}
{{- end -}}
{{- $scaling := include "heliostat.poolsScale" . -}}
{{- $applications := list -}}
{{- $routers := deepCopy .spec -}}
{{- range $role := list "prefill" "decode" -}}
{{- range $name, $settings := index $.spec $role -}}
{{- $deployment := printf "%s-%s" $role $name -}}
{{- $outside := $shape.outside -}}
{{- with index $settings "lora" -}}
{{- if index . "rank" -}}
{{- $outside = append $outside "adapters" -}}
{{- end -}}
{{- end -}}
{{- $args := merge (dict "role" $role "name" $name "pool" (include "heliostat.inside" (dict "value" $settings "outside" $outside) | fromJson)) $beside -}}
{{- $span := include "heliostat.span" (dict "root" $.root "pool" $settings) | fromJson -}}
{{- $scale := dict "name" $deployment "graceful_shutdown_timeout_s" (dig "drain_s" $pool.drain_s.default $settings) -}}
{{- if $scaling -}}
{{- $_ := set $scale "autoscaling_config" (include "heliostat.scaling" (dict "shape" $shape "spec" $.spec "role" $role "name" $name "pool" $settings "span" $span) | fromJson) -}}
{{- else -}}
{{- $_ := set $scale "num_replicas" $span.min -}}
{{- end -}}
{{- if hasKey $pool "surge_percent" -}}
{{- $_ := set $scale "max_surge_percent" (dig "surge_percent" $pool.surge_percent.default $settings) -}}
{{- end -}}
{{- $applications = append $applications (dict "name" (printf "heliostat-%s" $deployment) "route_prefix" nil "import_path" "deployments.app:build_pool" "args" $args "deployments" (list $scale)) -}}
{{- $known := include "heliostat.only" (dict "value" $settings "keys" $shape.routers) | fromJson -}}
{{- if eq (int $span.min) 0 -}}
{{- $_ := set $known "replicas" (dict "min" 0) -}}
{{- with dig "autoscale" "cold_start_s" nil $settings -}}
{{- $_ := set $known "autoscale" (dict "cold_start_s" .) -}}
{{- end -}}
{{- end -}}
{{- $_ := set (index $routers $role) $name $known -}}
{{- end -}}
{{- end -}}
{{- $replicas := dig "router" "replicas" $shape.spec.router.section.replicas.default .spec -}}
{{- $scale := dict "name" "router" "num_replicas" $replicas "graceful_shutdown_timeout_s" (include "heliostat.longest" . | float64) -}}
{{- if hasKey $pool "surge_percent" -}}
{{/* One router more while they are made anew. */}}
{{- $_ := set $scale "max_surge_percent" (divf 100 $replicas | ceil) -}}
{{- end -}}
{{- $applications = append $applications (dict "name" "heliostat" "route_prefix" "/" "import_path" "deployments.app:build_router" "args" $routers "deployments" (list $scale)) -}}
{{- dict "proxy_location" "EveryNode" "http_options" (dict "host" "0.0.0.0" "port" 8000) "applications" $applications | toPrettyJson -}}
{{- end -}}

{{/* {value, keys, fields} → `value` without the keys that are listed under its sections, as JSON. A section that
     is its default then goes too. */}}
{{- define "heliostat.without" -}}
{{- $out := deepCopy .value -}}
{{- range $section, $keys := .keys -}}
{{- if hasKey $out $section -}}
{{- $kept := include "heliostat.inside" (dict "value" (index $out $section) "outside" $keys) | fromJson -}}
{{- $_ := set $out $section $kept -}}
{{- if eq (toJson $kept) (toJson (index $.fields $section).default) -}}
{{- $_ := unset $out $section -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toJson $out -}}
{{- end -}}

{{/* {value, outside} → `value` without these keys, as JSON. */}}
{{- define "heliostat.inside" -}}
{{- $inside := dict -}}
{{- range $key, $value := .value -}}
{{- if not (has $key $.outside) -}}
{{- $_ := set $inside $key $value -}}
{{- end -}}
{{- end -}}
{{- toJson $inside -}}
{{- end -}}

{{/* {value, keys} → `value` with these keys only, as JSON. */}}
{{- define "heliostat.only" -}}
{{- $only := dict -}}
{{- range .keys -}}
{{- if hasKey $.value . -}}
{{- $_ := set $only . (index $.value .) -}}
{{- end -}}
{{- end -}}
{{- toJson $only -}}
{{- end -}}

{{/* Whether any pool scales, as a word: then Serve asks about all of them. */}}
{{- define "heliostat.poolsScale" -}}
{{- range $role := list "prefill" "decode" -}}
{{- range $name, $settings := index $.spec $role -}}
{{- $span := include "heliostat.span" (dict "root" $.root "pool" $settings) | fromJson -}}
{{- if lt (int $span.min) (int $span.max) -}}yes{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* {shape, spec, role, name, pool, span} → Serve's autoscaling config of a pool, as JSON: what
     deployments/scaling.py makes of router/scaling/pools.py. */}}
{{- define "heliostat.scaling" -}}
{{- $fields := .shape.spec.prefill.sections -}}
{{- $told := dict "role" .role "name" .name "least" .span.min "most" .span.max "gpus" (dig "gpus" $fields.gpus.default .pool) -}}
{{- $_ := set $told "target_ms" (index .pool (ternary "ttft_ms" "tpot_ms" (eq .role "prefill"))) -}}
{{- range $key := list "up_delay_s" "down_delay_s" "idle_s" "start_s" -}}
{{- $_ := set $told $key (dig "autoscale" $key (index $fields.autoscale.section $key).default $.pool) -}}
{{- end -}}
{{- $leadsTo := list -}}
{{- range $_, $model := .spec.models -}}
{{- if and (eq $.role "prefill") (eq $model.prefill $.name) -}}
{{- $leadsTo = append $leadsTo $model.decode -}}
{{- end -}}
{{- end -}}
{{- $_ := set $told "leads_to" ($leadsTo | uniq | sortAlpha) -}}
{{- $config := deepCopy .shape.scaling -}}
{{- $_ := set $config "min_replicas" .span.min -}}
{{- $_ := set $config "max_replicas" .span.max -}}
{{- $_ := set $config.policy "policy_kwargs" (dict "pool" $told "max_gpus" .spec.max_gpus) -}}
{{- toJson $config -}}
{{- end -}}
