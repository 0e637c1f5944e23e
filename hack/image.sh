#!/usr/bin/env bash
# Builds a container image from scratch: one static program. With docker, podman or buildah, whichever works first.
#
# IMAGE names it; without it: ghcr.io/applink-operator/applink-operator:VERSION.
# ENGINE chooses an engine; TARGET the architecture, such as aarch64-unknown-linux-gnu.
# shellcheck disable=SC2317 # stage calls the functions
set -euo pipefail
# shellcheck source=hack/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

readonly limit=$((20 * 1000 * 1000))

need_toolchains
need readelf:binutils

version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)
revision=$(git rev-parse HEAD 2>/dev/null || echo unknown)
image=${IMAGE:-ghcr.io/applink-operator/applink-operator:$version}
target=${TARGET:-$(uname -m)-unknown-linux-gnu}
binary=target/$target/release/applink

compile() {
  if has rustup; then rustup target add "$target" >/dev/null 2>&1 || true; fi
  # The resolver and the roots are in Rust, so nothing of glibc is looked up when it runs.
  RUSTFLAGS='-C target-feature=+crt-static' cargo build --locked --release --bin applink --target "$target"
}

check() {
  local size
  size=$(stat -c %s "$binary")
  # A static program asks for no loader.
  if readelf --program-headers --wide "$binary" | grep -q INTERP; then
    fail "$binary is not static: in an image from scratch it can't start."
  fi
  ((size < limit)) || fail "$binary has $size bytes; the image must stay under $limit."
  say "   $binary: static, $((size / 1000)) kB"
}

# The commands that can build here, each with its options; being installed isn't enough. The plainest comes first.
engines() {
  if has docker && docker info >/dev/null 2>&1; then echo 'docker build'; fi
  if has podman && podman info >/dev/null 2>&1; then echo 'podman build'; fi
  if has buildah; then
    if buildah info >/dev/null 2>&1; then echo 'buildah build'; fi
    # Inside a container there are neither overlays nor namespaces.
    echo 'buildah --storage-driver vfs build --isolation chroot'
  fi
}

build_image() {
  local engine=$1 context status=0
  context=$(mktemp -d)
  cp deploy/Dockerfile "$context/Dockerfile"
  cp "$binary" "$context/applink"
  chmod 0755 "$context/applink"
  # shellcheck disable=SC2086 # the words of a command
  $engine --tag "$image" --build-arg "VERSION=$version" --build-arg "REVISION=$revision" \
    --file "$context/Dockerfile" "$context" >&2 || status=$?
  rm -rf "$context"
  return "$status"
}

stage "program" compile
check

while IFS= read -r engine; do
  [[ -z ${ENGINE:-} || ${engine%% *} == "$ENGINE" ]] || continue
  if stage "image with $engine" build_image "$engine" </dev/null; then
    say "$image is there. Push it with: ${engine%% build*} push $image"
    exit 0
  fi
done < <(engines)
fail "The program is built ($binary), but no image: no ${ENGINE:-docker, podman or buildah} works here. On Debian: sudo apt-get install buildah"
