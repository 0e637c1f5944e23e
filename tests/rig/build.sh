#!/usr/bin/env bash
# Builds the programs that the tests run against: a real etcd, Kubernetes and Helm, from source, each pinned by its
# folder's go.mod and go.sum. They are kept in a cache outside the checkout, so that a fresh clone doesn't build them again.
#
#   tests/rig/build.sh [PART…]                build what is missing (all parts, or the named ones)
#   tests/rig/build.sh --print-bin [PART…]    the same, and print one folder that holds all the programs on stdout
#
# APPLINK_RIG_CACHE says where the cache is; without it: $XDG_CACHE_HOME/applink-rig or ~/.cache/applink-rig.
#
# To add a part: a folder with a go.mod whose `tool` lines name its programs, and one line below.
set -euo pipefail

# part | name people know | the module whose version is the part's | cgo | tags | programs
PARTS=(
  'etcd|etcd|go.etcd.io/etcd/server/v3|0||etcd'
  'kubernetes|Kubernetes|k8s.io/kubernetes|0||kube-apiserver kube-controller-manager kubectl'
  'helm|Helm|helm.sh/helm/v4|0||helm'
)

rig=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${APPLINK_RIG_CACHE:-${XDG_CACHE_HOME:-${HOME:?rig: set HOME or APPLINK_RIG_CACHE}/.cache}/applink-rig}

say() { printf 'rig: %s\n' "$*" >&2; }
fail() {
  say "$*"
  exit 1
}

# What a part is linked with: without the version a server calls itself v0.0.0 and its clients guess.
# $1 part, $2 version without its v
ldflags_of() {
  local flags='-s -w' major minor base=k8s.io/component-base/version
  case $1 in
    kubernetes)
      IFS=. read -r major minor _ <<<"$2"
      flags+=" -X $base.gitVersion=v$2 -X $base.gitMajor=$major -X $base.gitMinor=$minor -X $base.gitTreeState=clean"
      ;;
    helm) flags+=" -X helm.sh/helm/v4/internal/version.version=v$2" ;;
  esac
  printf '%s' "$flags"
}

# The version that go.mod requires of a module, without its v. $1 part, $2 module
version_of() {
  awk -v module="$2" '
    $1 == "require" { shift_by = 1 } $1 != "require" { shift_by = 0 }
    $(1 + shift_by) == module && $(2 + shift_by) ~ /^v/ { print substr($(2 + shift_by), 2); exit }
  ' "$rig/$1/go.mod"
}

hash_of() { sha256sum | cut -c1-12; }

# Whether the local Go is new enough for a part. $1 part, $2 what to call it
check_go() {
  local needed have
  needed=$(awk '$1 == "go" { print $2; exit }' "$rig/$1/go.mod")
  command -v go >/dev/null || fail "$2 needs Go ${needed%.0} or newer to be built, and there is no go on the PATH."
  have=$(cd / && GOTOOLCHAIN=local go env GOVERSION)
  have=${have#go}
  have=${have%% *}
  [[ $(printf '%s\n' "$needed" "$have" | sort -V | head -n 1) == "$needed" ]] ||
    fail "$2 needs Go ${needed%.0} or newer to be built, and this is Go $have."
}

# Builds a part into its folder of the cache, unless another call did. $1 part, $2 title, $3 folder, $4 cgo, $5 tags, $6 ldflags, $7 programs
build() {
  local part=$1 title=$2 dir=$3 programs=$7 out=. started=$SECONDS temporary lock program log
  check_go "$part" "$title"
  exec {lock}>"$cache/$part.lock"
  if ! flock -n "$lock"; then
    say "$title: waiting for another build of it"
    flock "$lock"
  fi
  if [[ ! -d $dir ]]; then
    # Under the lock nobody else builds this part: what lies here was left by a build that was killed.
    rm -rf "$cache/.$part".*
    temporary=$(mktemp -d "$cache/.$part.XXXXXX")
    log=$cache/$part.log
    # A part with one program names it; Go names several after their packages.
    [[ $programs == *' '* ]] || out=$programs
    say "$title … building, which takes minutes the first time"
    if ! (cd "$rig/$part" && CGO_ENABLED=$4 GOFLAGS='' GOWORK=off GOTOOLCHAIN=local \
      go build -mod=readonly -trimpath -tags "$5" -ldflags "$6" -o "$temporary/$out" tool) >"$log" 2>&1; then
      tail -n 20 "$log" >&2
      fail "$title could not be built; the whole output is in $log."
    fi
    for program in $programs; do
      [[ -x $temporary/$program ]] || fail "$title was built, but without its program $program."
    done
    chmod 755 "$temporary"
    mv -T "$temporary" "$dir"
    say "$title … built in $((SECONDS - started)) s"
  fi
  exec {lock}>&-
}

print_bin=false
if [[ ${1:-} == --print-bin ]]; then
  print_bin=true
  shift
fi
mkdir -p "$cache"

wanted=" $* "
known=
keys=
links=()
for line in "${PARTS[@]}"; do
  IFS='|' read -r part name module cgo tags programs <<<"$line"
  known+=" $part"
  [[ $# -eq 0 || $wanted == *" $part "* ]] || continue
  wanted=${wanted/ $part / }
  version=$(version_of "$part" "$module")
  [[ -n $version ]] || fail "$rig/$part/go.mod does not require $module."
  ldflags=$(ldflags_of "$part" "$version")
  # The folder's name changes with whatever changes the programs.
  key=$({
    cat "$rig/$part/go.mod" "$rig/$part/go.sum"
    printf '%s|%s|%s|%s|%s' "$cgo" "$tags" "$ldflags" "$programs" "$(uname -sm)"
  } | hash_of)
  dir=$cache/$part-$version-$key
  [[ -d $dir ]] || build "$part" "$name $version" "$dir" "$cgo" "$tags" "$ldflags" "$programs"
  for program in $programs; do links+=("../${dir##*/}/$program"); done
  keys+="$part-$version-$key "
done
[[ $# -eq 0 || -z ${wanted// /} ]] || fail "there is no part called${wanted% }; there are$known."

bin=$cache/bin-$(printf '%s' "$keys" | hash_of)
if [[ ! -d $bin ]]; then
  temporary=$(mktemp -d "$cache/.bin.XXXXXX")
  ln -s "${links[@]}" "$temporary/"
  chmod 755 "$temporary"
  # Another call may have been faster; its folder is the same.
  mv -T "$temporary" "$bin" 2>/dev/null || rm -rf "$temporary"
fi
say "ready in $bin"
if $print_bin; then printf '%s\n' "$bin"; fi
