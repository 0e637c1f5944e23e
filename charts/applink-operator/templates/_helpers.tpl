{{- define "applink-operator.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/*
The name that all objects begin with: at most 40 letters, since a StatefulSet's name, the suffixes that we put behind this one
and the hash of its Pods must fit into a label. A name that is too long ends in a hash, so that two long names stay two.
*/}}
{{- define "applink-operator.fullname" -}}
{{- $name := .Values.fullnameOverride -}}
{{- if not $name -}}
{{- $own := default .Chart.Name .Values.nameOverride -}}
{{- $name = ternary .Release.Name (printf "%s-%s" .Release.Name $own) (contains $own .Release.Name) -}}
{{- end -}}
{{- if gt (len $name) 40 -}}
{{- printf "%s-%s" ($name | trunc 31 | trimSuffix "-") (sha256sum $name | trunc 8) -}}
{{- else -}}
{{- $name -}}
{{- end -}}
{{- end -}}

{{/* The name of what stands outside the release's namespace. No Kubernetes name has a colon, so two releases can't meet. */}}
{{- define "applink-operator.clusterName" -}}
{{ include "applink-operator.fullname" . }}:{{ .Release.Namespace }}
{{- end -}}

{{- define "applink-operator.providerName" -}}
{{ include "applink-operator.fullname" . }}-provider
{{- end -}}

{{- define "applink-operator.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "applink-operator.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "applink-operator.adminTokenSecret" -}}
{{ include "applink-operator.fullname" . }}-admin-token
{{- end -}}

{{/* The labels that select a component's Pods; they can't change. Call with (list $ "operator"). */}}
{{- define "applink-operator.selectorLabels" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ include "applink-operator.name" $root }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{/* All labels of a component's object. Call with (list $ "operator"), and a third item for a Pod's own labels. */}}
{{- define "applink-operator.labels" -}}
{{- $root := index . 0 -}}
{{- $labels := include "applink-operator.selectorLabels" (list $root (index . 1)) | fromYaml -}}
{{- $_ := set $labels "app.kubernetes.io/version" ($root.Chart.AppVersion | toString) -}}
{{- $_ := set $labels "app.kubernetes.io/part-of" $root.Chart.Name -}}
{{- $_ := set $labels "app.kubernetes.io/managed-by" $root.Release.Service -}}
{{- $_ := set $labels "helm.sh/chart" (printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_") -}}
{{- $own := dict -}}
{{- if gt (len .) 2 -}}{{- $own = index . 2 -}}{{- end -}}
{{- toYaml (merge $labels $own $root.Values.commonLabels) -}}
{{- end -}}

{{- define "applink-operator.image" -}}
{{- $image := .Values.image -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ $image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{/* An address to listen on. Call with (list $ port). */}}
{{- define "applink-operator.listen" -}}
{{- $address := (index . 0).Values.bindAddress -}}
{{- if contains ":" $address -}}{{- $address = printf "[%s]" ($address | trimPrefix "[" | trimSuffix "]") -}}{{- end -}}
{{ $address }}:{{ index . 1 | int }}
{{- end -}}

{{/* The address of one of our Services. Call with (list $ name port). */}}
{{- define "applink-operator.serviceUrl" -}}
http://{{ index . 1 }}.{{ (index . 0).Release.Namespace }}.svc:{{ index . 2 | int }}
{{- end -}}

{{- define "applink-operator.providerUrl" -}}
{{- .Values.provider.url | default (include "applink-operator.serviceUrl" (list . (include "applink-operator.providerName" .) .Values.provider.port)) -}}
{{- end -}}

{{- define "applink-operator.providerAdminUrl" -}}
{{- .Values.provider.adminUrl | default (include "applink-operator.serviceUrl" (list . (include "applink-operator.providerName" .) .Values.provider.adminPort)) -}}
{{- end -}}

{{/* Who may use the bundled provider, as JSON. The default isn't in values.yaml: there it would be merged with a user's own. */}}
{{- define "applink-operator.providerAllow" -}}
{{- $allow := deepCopy .Values.provider.allow -}}
{{- if not (hasKey $allow "namespaces") -}}{{- $_ := set $allow "namespaces" (dict "all" dict) -}}{{- end -}}
{{- toJson $allow -}}
{{- end -}}

{{- define "applink-operator.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "applink-operator.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{/* What the user says of a component's Pods as they stand in a Pod's spec. Call with (list $ componentValues). */}}
{{- define "applink-operator.podSpec" -}}
{{- $spec := dict -}}
{{- with (index . 0).Values.imagePullSecrets -}}{{- $_ := set $spec "imagePullSecrets" . -}}{{- end -}}
{{- $component := index . 1 -}}
{{- range $key := list "nodeSelector" "tolerations" "affinity" "topologySpreadConstraints" "priorityClassName" -}}
{{- with index $component $key -}}{{- $_ := set $spec $key . -}}{{- end -}}
{{- end -}}
{{- with $spec -}}{{- toYaml . -}}{{- end -}}
{{- end -}}

{{/*
Our own kinds, in all namespaces: a Role would go with its namespace before the links there have let go of their clients, and
the namespace would hang.
*/}}
{{- define "applink-operator.kindRules" -}}
- apiGroups: [applink-operator.io]
  resources: [applicationlinks, linkproviders]
  verbs: [get, list, watch, patch]
- apiGroups: [applink-operator.io]
  resources: [applicationlinks/status, linkproviders/status]
  verbs: [patch]
# To own its Secrets so that they block the link's deletion.
- apiGroups: [applink-operator.io]
  resources: [applicationlinks/finalizers]
  verbs: [update]
# Which namespaces a provider allows may hang on their labels.
- apiGroups: [""]
  resources: [namespaces]
  verbs: [get, list, watch]
{{- end -}}

{{/* What else the operator may do in each namespace that it watches. */}}
{{- define "applink-operator.linkRules" -}}
{{ include "applink-operator.secretRules" . }}
{{ include "applink-operator.eventRules" . }}
{{- end -}}

{{- define "applink-operator.clusterLinkProviderRules" -}}
- apiGroups: [applink-operator.io]
  resources: [clusterlinkproviders]
  verbs: [get, list, watch, patch{{ if .Values.provider.enabled }}, create{{ end }}]
- apiGroups: [applink-operator.io]
  resources: [clusterlinkproviders/status]
  verbs: [patch]
{{- end -}}

{{- define "applink-operator.secretRules" -}}
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, list, watch, create, patch, delete]
{{- end -}}

{{- define "applink-operator.eventRules" -}}
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end -}}

{{/* A binding's subject: the operator. */}}
{{- define "applink-operator.subjects" -}}
- kind: ServiceAccount
  name: {{ include "applink-operator.serviceAccountName" . }}
  namespace: {{ .Release.Namespace }}
{{- end -}}
