{{/* {root, spec, group} → an entry of workerGroupSpecs. */}}
{{- define "heliostat.workerGroup" -}}
{{- $group := .group -}}
{{- $settings := $group.settings -}}
{{- $objects := .root.Values.objectStoreGib -}}
{{- $drain := ceil $group.drain | int -}}
groupName: {{ $group.name }}
{{- $settings = deepCopy $settings }}
{{- if include "heliostat.scales" .root }}
replicas: {{ $group.min }}
minReplicas: 0
maxReplicas: {{ max $group.max .root.Values.autoscaler.maxPods }}
{{- else }}
replicas: {{ $group.max }}
minReplicas: {{ $group.max }}
maxReplicas: {{ $group.max }}
{{- /* KubeRay makes a new cluster for other pods, but not for another number of them. */}}
{{- $_ := set $settings "annotations" (merge (dict "heliostat/pods" (print $group.max)) (default dict $settings.annotations)) }}
{{- end }}
rayStartParams:
  num-cpus: {{ ceil (maxf 1 $group.cpus) | int | quote }}
  num-gpus: {{ $group.gpus | int | quote }}
  object-store-memory: {{ mulf $objects 1073741824 | int64 | quote }}
  # KubeRay hands it to a shell.
  resources: {{ printf "'%s'" (toJson $group.resources) | toJson }}
template:
  metadata:
    {{- include "heliostat.podMetadata" (dict "root" .root "component" $group.component "settings" $settings) | nindent 4 }}
  spec:
    {{- include "heliostat.scheduling" (dict "root" .root "settings" $settings "token" false) | nindent 4 }}
    # A replica that leaves has `drain_s` for what it has begun; preStop waits for it.
    terminationGracePeriodSeconds: {{ add $drain 60 }}
    containers:
      - name: ray-worker
        image: {{ include "heliostat.image" .root }}
        imagePullPolicy: {{ .root.Values.image.pullPolicy }}
        securityContext: {{ toJson .root.Values.securityContext }}
        env:
          {{- include "heliostat.env" (dict "root" .root "spec" .spec) | nindent 10 }}
        ports:
          - {name: serve, containerPort: 8000}
          - {name: metrics, containerPort: 8080}
          - {name: haproxy, containerPort: 9101}
        resources:
          requests:
            cpu: {{ $group.cores | quote }}
            memory: {{ mulf (addf $group.memory $objects 1) 1024 | ceil | int }}Mi
          limits:
            memory: {{ mulf (addf $group.memory $objects 1) 1024 | ceil | int }}Mi
            {{- if gt (int $group.gpus) 0 }}
            {{ $settings.gpuResource }}: {{ int $group.gpus }}
            {{- end }}
            {{- with $settings.resources }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
        # A pod takes requests once the whole cluster has been ready, and as long as a router answers through it:
        # a pool that fails later must not take the other pools' models with it.
        readinessProbe:
          exec:
            command:
              - /bin/sh
              - -c
              - |-
                test -f /tmp/was-ready || { wget -qO- -T 4 http://127.0.0.1:8000/ready && touch /tmp/was-ready; } || exit 1
                wget -qO- -T 4 http://127.0.0.1:8000/health
          periodSeconds: 10
          timeoutSeconds: 10
          failureThreshold: 3
        # The liveness probe is KubeRay's own: it asks Ray's agent.
        lifecycle:
          preStop:
            exec:
              command: [heliostat-drain, --within, {{ $drain | quote }}]
        volumeMounts:
          {{- include "heliostat.mounts" (dict "root" .root "router" (eq $group.component "router")) | nindent 10 }}
    volumes:
      {{- $shmMib := mulf (addf $group.shm $objects 0.5) 1024 | ceil | int }}
      {{- include "heliostat.volumes" (dict "root" .root "router" (eq $group.component "router") "shmMib" $shmMib) | nindent 6 }}
{{- end -}}
