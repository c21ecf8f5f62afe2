{{/* The spec as it is served: checked, without what has its default, and with what places it on pods.
     files/spec.json says which keys there are; scripts/helm-files makes it from the code. */}}

{{/* {value, fields} → a section without its defaults, as JSON. */}}
{{- define "heliostat.trim" -}}
{{- $out := dict -}}
{{- range $key, $field := .fields -}}
{{- $value := index $.value $key -}}
{{- if not (kindIs "invalid" $value) -}}
{{- if hasKey $field "section" -}}
{{- if and $field.span (not (kindIs "map" $value)) -}}
{{- $value = dict "min" $value "max" $value -}}
{{- end -}}
{{- $value = include "heliostat.trim" (dict "value" $value "fields" $field.section) | fromJson -}}
{{- else if hasKey $field "sections" -}}
{{- $entries := dict -}}
{{- range $name, $entry := $value -}}
{{- $_ := set $entries $name (include "heliostat.trim" (dict "value" $entry "fields" $field.sections) | fromJson) -}}
{{- end -}}
{{- $value = $entries -}}
{{- end -}}
{{- if or (not (hasKey $field "default")) (ne (toJson $value) (toJson $field.default)) -}}
{{- $_ := set $out $key $value -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toJson $out -}}
{{- end -}}

{{/* The spec as JSON. `transfer.host` is the node's address, because KV and tokens go between pods. Pools and
     routers ask for a resource that only pods of their own have, so that Ray places them there. */}}
{{- define "heliostat.spec" -}}
{{- $shape := .Files.Get "files/spec.json" | fromJson -}}
{{- $spec := deepCopy .Values.spec -}}
{{- include "heliostat.checkSpec" (dict "root" . "spec" $spec) -}}
{{- $transfer := default dict $spec.transfer -}}
{{- if not (hasKey $transfer "host") -}}
{{- $_ := set $transfer "host" "node" -}}
{{- end -}}
{{- $_ := set $spec "transfer" $transfer -}}
{{- $router := default dict $spec.router -}}
{{- $_ := set $router "resources" (merge (dict "heliostat-router" 1) (default dict $router.resources)) -}}
{{- $_ := set $spec "router" $router -}}
{{- range $role := list "prefill" "decode" -}}
{{- range $name, $pool := index $spec $role -}}
{{- $own := ternary "heliostat-replica" (printf "heliostat-%s-%s" $role $name) (eq $.Values.layout "onePod") -}}
{{- $_ := set $pool "resources" (merge (dict $own 1) (default dict $pool.resources)) -}}
{{- end -}}
{{- end -}}
{{- include "heliostat.trim" (dict "value" $spec "fields" $shape.spec) -}}
{{- end -}}

{{/* {root, pool} → {min, max} of its replicas, as JSON; `replicas` may be left out, or in part. */}}
{{- define "heliostat.span" -}}
{{- $shape := .root.Files.Get "files/spec.json" | fromJson -}}
{{- $span := default dict .pool.replicas -}}
{{- $bounds := dict -}}
{{- range $bound, $field := $shape.spec.prefill.sections.replicas.section -}}
{{- $_ := set $bounds $bound (dig $bound $field.default $span) -}}
{{- end -}}
{{- toJson $bounds -}}
{{- end -}}

{{/* The longest time that a replica which leaves may take, in seconds. */}}
{{- define "heliostat.longest" -}}
{{- $longest := 0.0 -}}
{{- $shape := .root.Files.Get "files/spec.json" | fromJson -}}
{{- range $role := list "prefill" "decode" -}}
{{- range $name, $pool := index $.spec $role -}}
{{- $longest = maxf $longest (dig "drain_s" $shape.spec.prefill.sections.drain_s.default $pool) -}}
{{- end -}}
{{- end -}}
{{- $longest -}}
{{- end -}}
