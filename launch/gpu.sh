#!/usr/bin/env bash
# One machine with NVIDIA GPUs: installs what is needed, once, and runs on all of them in one process.
#   launch/gpu.sh [--dry-run] --config configs/X.py --workdir DIR [--config.a.b=v]
# CUDA_VISIBLE_DEVICES picks GPUs, PYTHON the interpreter of a new .venv. Restarts: see restart.sh.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$here/common.sh"
cd "$here/.."

if [[ ${1:-} == --dry-run ]]; then
  DRY_RUN=1
  shift
fi
check_program launch/gpu.sh "$@"
if [[ ${DRY_RUN:-0} != 1 ]] && ! nvidia-smi -L >&2; then
  fail "no NVIDIA GPU; got an error from nvidia-smi; install the driver, or run without this script"
fi

bin=.venv/bin
if [[ ! -e .venv/cuda || requirements-cuda.txt -nt .venv/cuda || constraints.txt -nt .venv/cuda ]]; then
  [[ -x $bin/python ]] || act "${PYTHON:-python3}" -m venv .venv
  act "$bin/python" -m pip install --quiet -r requirements.txt -r requirements-cuda.txt -c constraints.txt
  act "$bin/python" -m pip install --quiet --no-deps --editable .
  act touch .venv/cuda
fi
# Named, so that JAX fails where it finds no GPU; the CPU counts operations.
export JAX_PLATFORMS=${JAX_PLATFORMS:-cuda,cpu}
act "$here/restart.sh" -- "$bin/python" -m robust_jax.main "$@"
