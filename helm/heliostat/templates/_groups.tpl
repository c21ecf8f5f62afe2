{{/* Which pods there are: a group for the routers, and one for each pool, or one for all replicas together. */}}

{{/* {root, spec} → the groups as a JSON list. Units: GiB, cores, seconds. */}}
{{- define "heliostat.groups" -}}
{{- $values := .root.Values -}}
{{- $pool := .root.Files.Get "files/spec.json" | fromJson | dig "spec" "prefill" "sections" dict -}}
{{- $transfer := .root.Files.Get "files/spec.json" | fromJson | dig "spec" "transfer" "section" dict -}}
{{- $shm := and (not .spec.transfer.connector) (eq (dig "transport" $transfer.transport.default .spec.transfer) "shm") -}}
{{- $kept := ternary 0.0 (dig "memory_gib" $transfer.memory_gib.default .spec.transfer | float64) (hasKey .spec.transfer "connector") -}}
{{- $routers := dig "router" "replicas" 1 .spec | int -}}
{{- $groups := list (dict "name" "routers" "component" "router" "settings" $values.routers "min" $routers "max" $routers "resources" .spec.router.resources "cpus" 1 "cores" $values.routers.cpus "gpus" 0 "memory" $values.routers.memoryGib "shm" 0 "drain" (include "heliostat.longest" . | float64)) -}}
{{- $all := dict "cpus" 0.0 "gpus" 0 "memory" 0.0 "shm" 0.0 "drain" 0.0 "replicas" 0 "resources" dict -}}
{{- range $role := list "prefill" "decode" -}}
{{- range $name, $spec := index $.spec $role -}}
{{- $settings := mergeOverwrite (deepCopy $values.pods.defaults) (default dict (index $values.pods $role $name)) -}}
{{- $span := include "heliostat.span" (dict "root" $.root "pool" $spec) | fromJson -}}
{{- $onePod := eq $values.layout "onePod" -}}
{{- $n := ternary $span.max $settings.replicasPerPod $onePod | int -}}
{{- $gpus := dig "gpus" $pool.gpus.default $spec | int -}}
{{- $cpus := mulf $n (dig "cpus" $pool.cpus.default $spec) -}}
{{- $kv := ternary (dig "kv_cache_gib" 1 $spec) 0 (eq $gpus 0) -}}
{{- $saved := ternary $kept 0.0 (eq $role "prefill") -}}
{{/* Tensor-parallel workers of one replica talk through shared memory. */}}
{{- $parallel := ternary 2.0 0.0 (gt $gpus 1) -}}
{{- $memory := mulf $n (addf $settings.memoryGib $kv $saved $parallel) -}}
{{- $shared := mulf $n (addf (ternary $saved 0.0 $shm) $parallel) -}}
{{- $drain := dig "drain_s" $pool.drain_s.default $spec -}}
{{- $resources := dict -}}
{{- range $resource, $amount := $spec.resources -}}
{{- $_ := set $resources $resource (mulf $n $amount | int) -}}
{{- $_ := set $all.resources $resource (addf (dig $resource 0 $all.resources) (mulf $n $amount) | int) -}}
{{- end -}}
{{- if $onePod -}}
{{- $_ := set $all "cpus" (addf $all.cpus $cpus) -}}
{{- $_ := set $all "gpus" (add $all.gpus (mul $n $gpus)) -}}
{{- $_ := set $all "memory" (addf $all.memory $memory) -}}
{{- $_ := set $all "shm" (addf $all.shm $shared) -}}
{{- $_ := set $all "drain" (maxf $all.drain $drain) -}}
{{- else -}}
{{- $fewest := divf $span.min $n | ceil | int -}}
{{- $most := divf $span.max $n | ceil | int -}}
{{- $deployment := printf "%s-%s" $role (include "heliostat.dns" $name) -}}
{{- $groups = append $groups (dict "name" $deployment "component" $deployment "settings" $settings "min" $fewest "max" $most "resources" $resources "cpus" $cpus "cores" (addf $cpus $settings.cpus) "gpus" (mul $n $gpus) "memory" $memory "shm" $shared "drain" $drain) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if eq $values.layout "onePod" -}}
{{- $groups = append $groups (merge (dict "name" "replicas" "component" "replicas" "settings" $values.pods.defaults "min" 1 "max" 1 "cores" (addf $all.cpus $values.pods.defaults.cpus)) $all) -}}
{{- end -}}
{{- include "heliostat.inOrder" (dict "root" .root "groups" $groups) -}}
{{- end -}}

{{/* Groups that run come first, in their order: KubeRay adds what stands behind them to the running cluster,
     and makes a new cluster for anything else. */}}
{{- define "heliostat.inOrder" -}}
{{- $running := lookup "ray.io/v1" "RayService" .root.Release.Namespace (include "heliostat.fullname" .root) -}}
{{- $byName := dict -}}
{{- range .groups -}}
{{- $_ := set $byName .name . -}}
{{- end -}}
{{- $ordered := list -}}
{{- range dig "spec" "rayClusterConfig" "workerGroupSpecs" list $running -}}
{{- if hasKey $byName .groupName -}}
{{- $ordered = append $ordered (index $byName .groupName) -}}
{{- $byName = omit $byName .groupName -}}
{{- end -}}
{{- end -}}
{{- range .groups -}}
{{- if hasKey $byName .name -}}
{{- $ordered = append $ordered . -}}
{{- end -}}
{{- end -}}
{{- toJson $ordered -}}
{{- end -}}

{{/* Whether pods follow the replicas, as a word. */}}
{{- define "heliostat.scales" -}}
{{- if and .Values.autoscaler.enabled (ne .Values.layout "onePod") -}}yes{{- end -}}
{{- end -}}
