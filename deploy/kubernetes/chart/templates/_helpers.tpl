{{- define "millrace.name" -}}
{{- if contains "millrace" .Release.Name -}}
{{ .Release.Name | trunc 53 | trimSuffix "-" }}
{{- else -}}
{{ printf "%s-millrace" .Release.Name | trunc 53 | trimSuffix "-" }}
{{- end -}}
{{- end }}

{{- define "millrace.selector" -}}
app.kubernetes.io/name: millrace
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "millrace.labels" -}}
{{ include "millrace.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "millrace.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end }}

{{- define "millrace.claim" -}}
{{ .Values.weights.existingClaim | default (printf "%s-weights" (include "millrace.name" .)) }}
{{- end }}

{{/* Whether several pods would want a volume that one node alone may mount. */}}
{{- define "millrace.check" -}}
{{- $several := or (gt (int .Values.replicas) 1) (ne .Values.autoscaling.kind "none") -}}
{{- $w := .Values.weights -}}
{{- if and $several (eq $w.kind "claim") (eq $w.accessMode "ReadWriteOnce") -}}
{{- fail "several pods cannot share weights with accessMode ReadWriteOnce: set weights.accessMode to ReadWriteMany or ReadOnlyMany, or weights.kind to pod" -}}
{{- end -}}
{{- range $flag, $value := .Values.flags -}}
{{- if has $flag (list "model-id" "revision" "port" "prometheus-port" "hostname" "api-key" "api-key-file" "huggingface-hub-cache" "graceful-termination-timeout") -}}
{{- fail (printf "flags.%s is not set there: it has a value of its own, see values.yaml" $flag) -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "millrace.queueWait" -}}
(histogram_quantile(0.9, sum by (le) (rate(tgi_request_queue_duration_bucket{namespace="{{ .Release.Namespace }}",service="{{ include "millrace.name" . }}"}[2m]))) > 0) or vector(0)
{{- end }}

{{- define "millrace.queueLength" -}}
sum(tgi_queue_size{namespace="{{ .Release.Namespace }}",service="{{ include "millrace.name" . }}"})
{{- end }}

{{- define "millrace.scaleBehavior" -}}
scaleUp:
  stabilizationWindowSeconds: {{ .Values.autoscaling.scaleUpStabilizationSeconds }}
  policies:
    - {type: Percent, value: 100, periodSeconds: 60}
scaleDown:
  stabilizationWindowSeconds: {{ .Values.autoscaling.scaleDownStabilizationSeconds }}
  policies:
    - {type: Pods, value: 1, periodSeconds: {{ add .Values.drain.preStopSeconds .Values.drain.timeoutSeconds 20 }}}
{{- end }}

{{/* Whether all GPUs of a pod share one copy of the model, as nothing else has been said. */}}
{{- define "millrace.sharesGpus" -}}
{{- $flags := .Values.flags -}}
{{- $told := or (hasKey $flags "num-shard") (hasKey $flags "num-replicas") (hasKey $flags "sharded") -}}
{{- and (gt (int .Values.gpu.count) 1) (not $told) -}}
{{- end }}

{{/* A flag with its value as one word. Numbers as they were written: not 2e+06. */}}
{{- define "millrace.flag" -}}
{{- $value := .value -}}
{{- if kindIs "slice" $value -}}
{{- $value = join "," $value -}}
{{- else if not (kindIs "string" $value) -}}
{{- $value = toJson $value -}}
{{- end -}}
{{ printf "--%s=%s" .flag $value | quote }}
{{- end }}
