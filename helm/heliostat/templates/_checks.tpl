{{/* What a JSON schema cannot say of the values, in the words of `heliostat plan`. All findings come at once. */}}

{{- define "heliostat.checkSpec" -}}
{{- $found := list -}}
{{- range $name, $model := .spec.models -}}
{{- range $role := list "prefill" "decode" -}}
{{- $pools := index $.spec $role -}}
{{- $pool := index $model $role -}}
{{- $place := printf "spec.models.%s.%s" $name $role -}}
{{- $adapter := index $model (printf "%s_adapter" $role) -}}
{{- if not (hasKey $pools $pool) -}}
{{- $found = append $found (printf "%s: no %s pool %q; %s pools: %s" $place $role $pool $role (keys $pools | sortAlpha | join ", ")) -}}
{{- else if $adapter -}}
{{- $adapters := default dict (index $pools $pool).adapters -}}
{{- if not (hasKey $adapters $adapter) -}}
{{- $remedy := ternary (printf "adapters: %s" (keys $adapters | sortAlpha | join ", ")) "list it under `adapters`" (gt (len $adapters) 0) -}}
{{- $found = append $found (printf "%s_adapter: %s.%s has no adapter %q; %s" $place $role $pool $adapter $remedy) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range $role := list "prefill" "decode" -}}
{{- range $name, $pool := index $.spec $role -}}
{{- $place := printf "spec.%s.%s" $role $name -}}
{{- if kindIs "map" $pool.replicas -}}
{{- $min := dig "min" 1 $pool.replicas -}}
{{- $max := dig "max" 1 $pool.replicas -}}
{{- if gt (int $min) (int $max) -}}
{{- $found = append $found (printf "%s.replicas: min %d is larger than max %d; raise max or lower min" $place (int $min) (int $max)) -}}
{{- end -}}
{{- end -}}
{{- $found = append $found (include "heliostat.checkPath" (list (printf "%s.weights" $place) $pool.weights)) -}}
{{- range $adapter, $path := $pool.adapters -}}
{{- $found = append $found (include "heliostat.checkPath" (list (printf "%s.adapters.%s" $place $adapter) $path)) -}}
{{- end -}}
{{- $calibration := dig "sim" "calibration" "" $pool -}}
{{- if and $calibration (not (hasPrefix "/" $calibration)) -}}
{{- $found = append $found (printf "%s.sim.calibration: %q is relative to a file that the pods do not have; name a path in a volume" $place $calibration) -}}
{{- end -}}
{{- range $resource, $amount := $pool.resources -}}
{{- if ne (toJson $amount) (toJson (floor $amount)) -}}
{{- $found = append $found (printf "%s.resources.%s: %v is not a whole number, which Ray's autoscaler for Kubernetes wants" $place $resource $amount) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $found = append $found (include "heliostat.checkPath" (list "spec.family.base" .spec.family.base)) -}}
{{- $transfer := default dict .spec.transfer -}}
{{- if hasPrefix "127." (default "" $transfer.host) -}}
{{- $found = append $found (printf "spec.transfer.host: %q is the loopback of one pod; leave it out, or say node" $transfer.host) -}}
{{- end -}}
{{- if and (eq .root.Values.layout "podPerReplica") (not $transfer.connector) (eq (default "shm" $transfer.transport) "shm") -}}
{{- $found = append $found "spec.transfer.transport: shm reaches one pod; say nixl or nccl, or `layout: onePod`" -}}
{{- end -}}
{{- range $role := list "prefill" "decode" -}}
{{- range $name, $_ := index $.root.Values.pods $role -}}
{{- $pools := index $.spec $role -}}
{{- if not (hasKey $pools $name) -}}
{{- $found = append $found (printf "pods.%s.%s: no %s pool %q; %s pools: %s" $role $name $role $name $role (keys $pools | sortAlpha | join ", ")) -}}
{{- else if eq $.root.Values.layout "onePod" -}}
{{- $found = append $found (printf "pods.%s.%s: with `layout: onePod` no pool has pods of its own; say it under pods.defaults" $role $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if eq (dig "connector" "name" "" $transfer) "NixlConnector" -}}
{{- $remedy := "NixlConnector listens on one port of a pod, so a pod has one replica" -}}
{{- if eq .root.Values.layout "onePod" -}}
{{- $found = append $found (printf "layout: %s" $remedy) -}}
{{- end -}}
{{- if gt (int .root.Values.pods.defaults.replicasPerPod) 1 -}}
{{- $found = append $found (printf "pods.defaults.replicasPerPod: %s" $remedy) -}}
{{- end -}}
{{- range $role := list "prefill" "decode" -}}
{{- range $name, $pods := index $.root.Values.pods $role -}}
{{- if gt (dig "replicasPerPod" 1 $pods | int) 1 -}}
{{- $found = append $found (printf "pods.%s.%s.replicasPerPod: %s" $role $name $remedy) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and (eq .root.Values.cache.kind "hostPath") (not .root.Values.cache.hostPath) -}}
{{- $found = append $found "cache.hostPath: missing; name a directory of the nodes" -}}
{{- end -}}
{{- if and .root.Values.httpRoute.enabled (not .root.Values.httpRoute.parentRefs) -}}
{{- $found = append $found "httpRoute.parentRefs: missing; name a Gateway" -}}
{{- end -}}
{{- $found = without $found "" -}}
{{- if $found -}}
{{- fail (printf "\n%s\n" ($found | uniq | join "\n")) -}}
{{- end -}}
{{- end -}}

{{/* A list of place and weights → a finding, or nothing. */}}
{{- define "heliostat.checkPath" -}}
{{- $place := index . 0 -}}
{{- $path := index . 1 -}}
{{- if not (or (hasPrefix "/" $path) (regexMatch "^[A-Za-z0-9][A-Za-z0-9_.-]*/[A-Za-z0-9][A-Za-z0-9_.-]*$" $path)) -}}
{{- printf "%s: %q is no path of a pod and no hub name; write `org/model`, or `/…` in a volume" $place $path -}}
{{- end -}}
{{- end -}}
