#!/usr/bin/env bash
# One Cloud TPU VM with one host, from creating to deleting it; see --help and docs/launch.md.
set -euo pipefail
# shellcheck disable=SC2034 # read by tpu.sh
script=launch/tpu_vm.sh worker=0 options=()
source "$(dirname "${BASH_SOURCE[0]}")/tpu.sh"
main "$@"
