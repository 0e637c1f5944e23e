#!/usr/bin/env bash
# Builds the programs that the tests run against: a real etcd, Kubernetes, Helm and Ory Hydra, from source, each pinned by
# its folder's go.mod and go.sum; and a real Keycloak, from Maven Central, pinned by its folder's dist.sha256. They are kept
# in a cache outside the checkout, so that a fresh clone doesn't build them again.
#
#   tests/rig/build.sh [PART…]                build what is missing (all parts, or the named ones)
#   tests/rig/build.sh --print-bin [PART…]    the same, and print one folder that holds all the programs on stdout
#   tests/rig/build.sh --list                 build nothing; print the names of what this checkout uses of the cache
#
# APPLINK_RIG_CACHE says where the cache is; without it: $XDG_CACHE_HOME/applink-rig or ~/.cache/applink-rig.
#
# Programs that are there already are used in place of building them: those in the folder APPLINK_RIG_BIN, and in envtest's,
# KUBEBUILDER_ASSETS (etcd, kube-apiserver and kubectl). They must be of the pinned minor version. Only programs that are
# missing, or of another one, are built. Hydra and Keycloak always come from here.
#
# To add a part: a folder with a go.mod whose `tool` lines name its programs, and one line below. With a dist.sha256 in the
# folder instead, the part is fetched: the line gives GROUP:ARTIFACT in the module's place, and dist.sha256 the version.
set -euo pipefail

# part | name people know | the module whose version is the part's | cgo | tags | programs
PARTS=(
  'etcd|etcd|go.etcd.io/etcd/server/v3|0||etcd'
  'kubernetes|Kubernetes|k8s.io/kubernetes|0||kube-apiserver kube-controller-manager kubectl'
  'helm|Helm|helm.sh/helm/v4|0||helm'
  'hydra|Ory Hydra|github.com/ory/hydra/v2|1|sqlite,json1|hydra'
  'keycloak|Keycloak|org.keycloak:keycloak-quarkus-dist|||bin/kc.sh'
)

# What Keycloak is made ready with once, so that it starts faster: an option of this kind can't be changed at a start.
KEYCLOAK_BUILD=(
  --db=dev-mem
  '--features=client-secret-rotation,client-auth-federated,kubernetes-service-accounts'
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
    hydra) flags+=" -X github.com/ory/hydra/v2/driver/config.Version=v$2" ;;
  esac
  printf '%s' "$flags"
}

# What a program says of its version, without a v. $1 path
says_version() {
  local said
  case ${1##*/} in
    kubectl) said=$("$1" version --client 2>/dev/null) ;;
    helm | hydra) said=$("$1" version 2>/dev/null) ;;
    *) said=$("$1" --version 2>/dev/null) ;;
  esac
  sed -nE 's/^[^0-9]*v?([0-9]+\.[0-9]+\.[0-9]+).*/\1/p' <<<"$said" | head -n 1
}

# The path of a program that is there already, or nothing. $1 program, $2 pinned version
ready_made() {
  local variable path version minor=${2%.*}
  for variable in APPLINK_RIG_BIN KUBEBUILDER_ASSETS; do
    [[ -n ${!variable:-} ]] || continue
    path=$(cd "${!variable}" 2>/dev/null && pwd)/${1##*/} ||
      fail "$variable is ${!variable}, and there is no such folder. Name one that holds the programs, or unset it."
    [[ -x $path ]] || continue
    version=$(says_version "$path")
    if [[ ${version%.*} == "$minor" ]]; then
      printf '%s\n' "$path"
      return
    fi
    say "$variable has ${1##*/} ${version:-of no version that it tells}, and $minor is pinned: it isn't used"
  done
}

# What Go is to build for a program. $1 part, $2 all programs of the part, $3 program
package_of() {
  if [[ $2 == "$3" ]]; then
    printf 'tool\n'
  else
    # Of a list in parentheses, a tool is a line of one word.
    awk -v name="/$3" '
      (NF == 1 || $1 == "tool") && substr($NF, length($NF) - length(name) + 1) == name { print $NF }
    ' "$rig/$1/go.mod"
  fi
}

is_fetched() { [[ -f $rig/$1/dist.sha256 ]]; }

# The version of a part: the one that go.mod requires of a module, without its v, or the one of the pinned file.
# $1 part, $2 module or GROUP:ARTIFACT
version_of() {
  if is_fetched "$1"; then
    sed -nE "s/^[0-9a-f]{64}  ${2#*:}-(.+)\\.tar\\.gz\$/\\1/p" "$rig/$1/dist.sha256"
    return
  fi
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

# Whether a part that needs cgo can be built. $1 what to call it
check_cc() {
  command -v "${CC:-gcc}" >/dev/null || fail "$1 needs a C compiler to be built, and there is no ${CC:-gcc} on the PATH."
}

# Whether a part of Maven Central can be fetched and run. $1 what to call it
check_java() {
  local program have
  for program in java mvn; do
    command -v "$program" >/dev/null || fail "$1 needs Java 17 or newer and Maven, and there is no $program on the PATH."
  done
  have=$(java -version 2>&1 | sed -nE '/ version "/ { s/.* version "([0-9]+).*/\1/p; q }')
  ((${have:-0} >= 17)) || fail "$1 needs Java 17 or newer, and this is ${have:-unknown}."
}

# Whether this machine can make a part. $1 part, $2 title, $3 cgo
check() {
  if is_fetched "$1"; then
    check_java "$2"
  else
    check_go "$1" "$2"
    [[ $3 != 1 ]] || check_cc "$2"
  fi
}

# Compiles programs of a part. $1 part, $2 folder, $3 cgo, $4 tags, $5 ldflags, $6 programs, $7 all programs of the part
compile() {
  local out=./ packages=tool
  if [[ $6 != "$7" ]]; then packages=$(for program in $6; do package_of "$1" "$7" "$program"; done); fi
  # A part with one program names it; Go names several after their packages.
  [[ $7 == *' '* ]] || out=$7
  cd "$rig/$1" || return
  # shellcheck disable=SC2086 # a package a word
  CGO_ENABLED=$3 GOFLAGS='' GOWORK=off GOTOOLCHAIN=local \
    go build -mod=readonly -trimpath -tags "$4" -ldflags "$5" -o "$2/$out" $packages
}

# Fetches a part of Maven Central, checks it and makes it ready. $1 part, $2 folder, $3 GROUP:ARTIFACT, $4 version
fetch() {
  local file=${3#*:}-$4.tar.gz
  # A plugin without a version would be whichever this Maven has grown up with.
  (cd / && mvn --batch-mode --no-transfer-progress org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy \
    -Dartifact="$3:$4:tar.gz" -DoutputDirectory="$2") || return
  cd "$2" || return
  sha256sum --check "$rig/$1/dist.sha256" || return
  tar -xzf "$file" --strip-components=1 || return
  rm "$file" || return
  case $1 in
    keycloak) bin/kc.sh build "${KEYCLOAK_BUILD[@]}" ;;
  esac
}

# Makes a part in its folder of the cache, unless another call did.
# $1 part, $2 title, $3 folder, $4 module, $5 version, $6 cgo, $7 tags, $8 ldflags, $9 programs, $10 all its programs
build() {
  local part=$1 title=$2 dir=$3 module=$4 version=$5 cgo=$6 tags=$7 ldflags=$8 programs=$9 all=${10}
  local started=$SECONDS temporary lock program log
  check "$part" "$title" "$cgo"
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
    if is_fetched "$part"; then
      say "$title … fetching, which takes a minute the first time"
      (fetch "$part" "$temporary" "$module" "$version") >"$log" 2>&1 || lost "$title" fetched "$log"
    else
      say "$title … building, which takes minutes the first time"
      (compile "$part" "$temporary" "$cgo" "$tags" "$ldflags" "$programs" "$all") >"$log" 2>&1 || lost "$title" built "$log"
    fi
    for program in $programs; do
      [[ -x $temporary/$program ]] || fail "$title was built, but without its program $program."
    done
    chmod 755 "$temporary"
    mv -T "$temporary" "$dir"
    say "$title … there after $((SECONDS - started)) s"
  fi
  exec {lock}>&-
}

# $1 title, $2 what could not be done, $3 log
lost() {
  tail -n 20 "$3" >&2
  fail "$1 could not be $2; the whole output is in $3."
}

print_bin=false list=false
case ${1:-} in
  --print-bin) print_bin=true && shift ;;
  --list) list=true && shift ;;
esac
mkdir -p "$cache"

wanted=" $* "
known=
keys=
links=()
names=()
for line in "${PARTS[@]}"; do
  IFS='|' read -r part name module cgo tags programs <<<"$line"
  known+=" $part"
  [[ $# -eq 0 || $wanted == *" $part "* ]] || continue
  wanted=${wanted/ $part / }
  version=$(version_of "$part" "$module")
  [[ -n $version ]] || fail "$rig/$part does not say which version of $module it wants."
  ldflags=$(ldflags_of "$part" "$version")
  all=$programs
  programs=
  for program in $all; do
    path=
    # Keycloak is a folder that was made ready, and tells its version only after seconds; a Hydra doesn't tell whether it
    # was built with SQLite.
    is_fetched "$part" || [[ $cgo == 1 ]] || path=$(ready_made "$program" "$version")
    if [[ -n $path ]]; then
      links+=("$path")
      keys+="$path-$(says_version "$path") "
    else
      programs+="${programs:+ }$program"
    fi
  done
  [[ -n $programs ]] || continue
  # The folder's name changes with whatever changes the programs.
  key=$({
    if is_fetched "$part"; then
      cat "$rig/$part/dist.sha256"
      printf '%s|' "${KEYCLOAK_BUILD[@]}"
    else
      cat "$rig/$part/go.mod" "$rig/$part/go.sum"
    fi
    printf '%s|%s|%s|%s|%s' "$cgo" "$tags" "$ldflags" "$programs" "$(uname -sm)"
  } | hash_of)
  dir=$cache/$part-$version-$key
  names+=("${dir##*/}")
  $list || [[ -d $dir ]] ||
    build "$part" "$name $version" "$dir" "$module" "$version" "$cgo" "$tags" "$ldflags" "$programs" "$all"
  for program in $programs; do links+=("../${dir##*/}/$program"); done
  keys+="$part-$version-$key "
done
[[ $# -eq 0 || -z ${wanted// /} ]] || fail "there is no part called${wanted% }; there are$known."

bin=$cache/bin-$(printf '%s' "$keys" | hash_of)
if $list; then
  printf '%s\n' "${names[@]}" "${bin##*/}"
  exit
fi
if [[ ! -d $bin ]]; then
  temporary=$(mktemp -d "$cache/.bin.XXXXXX")
  ln -s "${links[@]}" "$temporary/"
  chmod 755 "$temporary"
  # Another call may have been faster; its folder is the same.
  mv -T "$temporary" "$bin" 2>/dev/null || rm -rf "$temporary"
fi
say "ready in $bin"
if $print_bin; then printf '%s\n' "$bin"; fi
