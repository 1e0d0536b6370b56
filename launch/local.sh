#!/usr/bin/env bash
# Several hosts, tried on one machine: N processes that find each other.
#   launch/local.sh N [--logs DIR] -- COMMAND ARGS
# For instance: launch/local.sh 2 -- python -m robust_jax.main --config configs/quickstart.py \
#   --workdir runs/two --distributed
# Each line of output begins with [process]; DIR (a new one below /tmp) keeps each process's own. The
# first failure ends the others, and its exit code is this script's. CPU, unless JAX_PLATFORMS is set.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

usage="write: launch/local.sh N [--logs DIR] -- COMMAND ARGS"
count=${1:-}
[[ $count =~ ^[1-9][0-9]*$ ]] || fail "N is not a number of processes; got '$count'; $usage"
shift
logs=
if [[ ${1:-} == --logs ]]; then
  logs=${2:-}
  [[ -n $logs && $logs != -- ]] || fail "--logs has no directory; got '$logs'; $usage"
  shift 2
fi
[[ ${1:-} == -- && $# -gt 1 ]] || fail "no command; got '$*'; $usage"
shift

python=${PYTHON:-python3}
grace=${GRACE:-110}
port=$("$python" -c 'import socket; s = socket.socket(); s.bind(("localhost", 0)); print(s.getsockname()[1])')
export ROBUST_JAX_COORDINATOR=localhost:$port ROBUST_JAX_PROCESSES=$count
export JAX_PLATFORMS=${JAX_PLATFORMS:-cpu} PYTHONUNBUFFERED=1
export JAX_CPU_COLLECTIVES_IMPLEMENTATION=${JAX_CPU_COLLECTIVES_IMPLEMENTATION:-gloo}
if [[ ${DRY_RUN:-0} == 1 ]]; then
  for ((i = 0; i < count; i++)); do
    quoted "ROBUST_JAX_COORDINATOR=$ROBUST_JAX_COORDINATOR" "ROBUST_JAX_PROCESSES=$count" \
      "ROBUST_JAX_PROCESS=$i" "$@"
    echo
  done
  exit
fi

logs=${logs:-$(mktemp -d "${TMPDIR:-/tmp}/robust_jax_local.XXXXXX")}
mkdir -p "$logs"
pipes=$(mktemp -d)
trap 'rm -rf "$pipes"' EXIT
say "$count processes; the output of each is in $logs/PROCESS.log"

# Progress is redrawn after a carriage return, which would hide it until its end.
prefix='
import os, re, sys
rest, tag = b"", sys.argv[1].encode()
while chunk := os.read(0, 65536):
    *lines, rest = re.split(rb"[\r\n]+", rest + chunk)
    os.write(1, b"".join(tag + line + b"\n" for line in lines if line))
if rest:
    os.write(1, tag + rest + b"\n")
'
pids=() readers=()
for ((i = 0; i < count; i++)); do
  mkfifo "$pipes/$i"
  tee "$logs/$i.log" <"$pipes/$i" | "$python" -uc "$prefix" "[$i] " &
  readers+=($!)
  ROBUST_JAX_PROCESS=$i "$@" >"$pipes/$i" 2>&1 &
  pids+=($!)
done

signal() { for pid in "${pids[@]}"; do kill "-$1" "$pid" 2>/dev/null || true; done; }
end_others() {
  signal TERM
  for ((waited = 0; waited < 5 * grace; waited++)); do
    any_alive || return 0
    sleep 0.2
  done
  signal KILL
}
any_alive() { for pid in "${pids[@]}"; do if kill -0 "$pid" 2>/dev/null; then return 0; fi; done; return 1; }

stopping=0
trap 'stopping=1; signal TERM' TERM INT
result=0 left=$count
declare -A ended=()
while ((left)); do
  for i in "${!pids[@]}"; do
    if [[ -n ${ended[$i]:-} ]] || kill -0 "${pids[$i]}" 2>/dev/null; then continue; fi
    code=0
    wait "${pids[$i]}" || code=$?
    ended[$i]=1 left=$((left - 1))
    if ((code && !result)); then
      result=$code
      ((stopping)) || say "process $i failed with exit code $code; ending the others"
      end_others
    fi
  done
  ((left == 0)) || sleep 0.1
done
for reader in "${readers[@]}"; do wait "$reader" || true; done
((!result)) || say "exit code $result; see $logs"
exit "$result"
