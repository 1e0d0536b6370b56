#!/usr/bin/env bash
# A slice of a Cloud TPU pod: the same program on every host of it; see --help and docs/launch.md.
set -euo pipefail
# shellcheck disable=SC2034 # read by tpu.sh
script=launch/tpu_pod.sh worker=all options=(--distributed)
source "$(dirname "${BASH_SOURCE[0]}")/tpu.sh"
main "$@"
