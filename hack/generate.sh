#!/usr/bin/env bash
# Writes the files that are made from others: crds/, the chart's CRD templates and docs/reference.md from the Rust types, and
# the patch for Argo CD's ConfigMap from health.lua.
#
#   hack/generate.sh          write them
#   hack/generate.sh --check  write nothing; fail when one of them isn't current
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

chart_crds=charts/applink-operator/templates/crds
argocd_patch=deploy/argocd/argocd-cm.yaml

# What writes the CRDs; a test may name another program.
applink() { ${APPLINK:-cargo run --quiet --} "$@"; }

# One CRD as the chart has it. What looks like the start of a template action in a description must come out as it is.
chart_template() {
  local braces='{{'
  printf '%s\n' "$braces- /* Made by \`make generate\`. */ -}}" "$braces- if .Values.crds.enabled -}}"
  awk '
    /^  annotations:/ { print "generate: this CRD has annotations already, put the keep policy beside them" > "/dev/stderr"; exit 1 }
    { gsub(/\{\{/, "{{ \"{{\" }}"); print }
    /^metadata:$/ {
      print "  annotations:"
      print "    # The links live in it: they stay when the release goes."
      print "    helm.sh/resource-policy: keep"
      print "  labels:"
      print "    {{- include \"applink-operator.labels\" (list . \"crds\") | nindent 4 }}"
    }
  ' "$1"
  printf '%s\n' "$braces- end }}"
}

# A patch that gives Argo CD the health check of each kind.
argocd_patch() {
  local kind
  cat <<'END'
# Teaches Argo CD the health of links and providers. Made from health.lua by `make generate`.
#
#   kubectl patch configmap argocd-cm -n argocd --patch-file argocd-cm.yaml
data:
END
  for kind in ApplicationLink LinkProvider ClusterLinkProvider; do
    printf '  resource.customizations.health.applink-operator.io_%s: |\n' "$kind"
    sed 's/^./    &/' deploy/argocd/health.lua
  done
}

# All of them, below the folder $1.
generate() {
  local file name
  mkdir -p "$1/crds" "$1/$chart_crds" "$1/docs" "$1/${argocd_patch%/*}"
  argocd_patch >"$1/$argocd_patch"
  applink crds >"$1/all.yaml"
  awk -v folder="$1/crds" '
    /^---$/ { file = ""; head = ""; next }
    file != "" { print > file; next }
    { head = head $0 "\n" }
    /^  name: [a-z]+\.[-a-z.]+$/ {
      plural = group = $2
      sub(/\..*/, "", plural)
      sub(/^[^.]*\./, "", group)
      file = folder "/" group "_" plural ".yaml"
      printf "%s", head > file
    }
  ' "$1/all.yaml"
  rm "$1/all.yaml"
  for file in "$1"/crds/*.yaml; do
    name=${file##*/}
    [[ -s $file ]] || { echo "generate: \`applink crds\` printed no CRD" >&2; exit 1; }
    chart_template "$file" >"$1/$chart_crds/${name#*_}"
  done
  applink crds --format markdown >"$1/docs/reference.md"
}

# The folders that hold nothing but generated files, and the single files.
folders=(crds "$chart_crds")
files=("$argocd_patch" docs/reference.md)

made=$(mktemp -d)
trap 'rm -rf "$made"' EXIT
generate "$made"

stale=
for folder in "${folders[@]}"; do
  if [[ ${1:-} == --check ]]; then
    diff -ruN "$folder" "$made/$folder" >&2 || stale+=" $folder"
  else
    mkdir -p "$folder"
    rm -f "$folder"/*.yaml
    cp "$made/$folder"/*.yaml "$folder/"
  fi
done
for file in "${files[@]}"; do
  if [[ ${1:-} == --check ]]; then
    diff -uN "$file" "$made/$file" >&2 || stale+=" $file"
  else
    mkdir -p "$(dirname "$file")"
    cp "$made/$file" "$file"
  fi
done
if [[ -n $stale ]]; then
  echo "generate: not current:$stale. Run \`make generate\` and commit what it writes." >&2
  exit 1
fi
