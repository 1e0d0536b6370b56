# shellcheck shell=bash
# Pieces of the launch scripts; sourced.

say() { echo "launch: $*" >&2; }

fail() {
  echo "error: $*" >&2
  exit 2
}

# Prints arguments so that a shell reads them back as they are.
quoted() {
  local text
  printf -v text '%q ' "$@"
  printf '%s' "${text% }"
}

# Runs a command, or prints it where DRY_RUN=1.
act() {
  if [[ "${DRY_RUN:-0}" == 1 ]]; then
    quoted "$@"
    echo
  else
    "$@"
  fi
}

# Checks the arguments of robust_jax.main and sets `workdir`; the first argument names the script.
check_program() {
  local script=$1 config=''
  workdir=''
  shift
  while (($#)); do
    case $1 in
      --config=*) config=${1#*=} ;;
      --workdir=*) workdir=${1#*=} ;;
      --config | --workdir)
        (($# > 1)) || fail "$1 has no value; got it as the last argument; write $1=VALUE"
        if [[ $1 == --config ]]; then config=$2; else workdir=$2; fi
        shift
        ;;
      --*) ;;
      *) fail "unexpected argument of $script; got '$1'; options begin with --" ;;
    esac
    shift
  done
  [[ -n $config ]] || fail "no config; got no --config for $script; add --config configs/X.py"
  [[ -n $workdir ]] || fail "no workdir; got no --workdir for $script; add --workdir DIR"
}

# Waits for a command in the background; its exit code is then in `code`. A signal with a trap ends
# `wait`, not the command, which may have ended before the trap has: bash remembers how.
await() {
  while kill -0 "$1" 2>/dev/null; do wait "$1" || true; done
  code=0
  wait "$1" || code=$?
}
