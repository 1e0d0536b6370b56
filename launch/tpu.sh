# shellcheck shell=bash
# What tpu_vm.sh and tpu_pod.sh share; sourced, with these set:
#   script    its name, for messages
#   worker    of gcloud: 0, or all
#   options   of robust_jax.main that the script adds
# shellcheck disable=SC2154
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$here/common.sh"

# On the VM, below the home directory, where commands begin.
code_dir=robust_jax run_dir=robust_jax_run

usage() {
  cat >&2 <<EOF
$script VERB NAME [--dry-run] [-- --config configs/X.py --workdir gs://BUCKET/DIR ...]
  create   makes the TPU VM
  setup    copies this tree to it and installs
  run      starts the program there and watches it, until it has ended; restarts it, and makes the
           VM again when it is preempted. Ctrl-C ends the watching only
  resume   the same as run
  logs     prints the newest output (LINES=50 of each worker)
  stop     asks the program to save a checkpoint and end
  delete   deletes the TPU VM
Environment:
  TPU_ZONE      required
  TPU_TYPE      accelerator type, such as v5litepod-8; required by create, run, resume
  TPU_RUNTIME   software version of the VM; required by create, run, resume
  TPU_SPOT=1    may be preempted, and is cheaper        TPU_QUEUED=1  through a queued resource
  TPU_PROJECT   if not gcloud's default                 POLL          seconds between looks (60)
  RESTARTS, PAUSE, GRACE: see launch/restart.sh         DRY_RUN=1     the same as --dry-run
EOF
}

# gcloud compute tpus GROUP VERB, of this zone and project.
tpus() { act gcloud compute tpus "$@" --zone="$TPU_ZONE" ${TPU_PROJECT:+--project="$TPU_PROJECT"}; }
on_vm() { tpus tpu-vm ssh "$name" --worker="$worker" --command="$1"; }

# What is asked, not done: never printed instead.
ask() { DRY_RUN=0 tpus "$@" 2>&1; }

# gcloud may say more than the state.
last_word() { grep -Ex '[A-Z_]+' <<<"$1" | tail -n 1; }

# The state of the VM: gcloud's; ABSENT; UNKNOWN where gcloud does not answer.
state() {
  local said
  if said=$(ask tpu-vm describe "$name" --format='value(state)'); then
    last_word "$said"
  elif [[ $said != *NOT_FOUND* ]]; then
    say "gcloud does not answer: ${said##*$'\n'}"
    echo UNKNOWN
  elif [[ ${TPU_QUEUED:-0} == 1 ]] &&
    said=$(ask queued-resources describe "$name" --format='value(state.state)'); then
    last_word "$said"
  else
    echo ABSENT
  fi
}

need() {
  local variable
  for variable in "$@"; do
    [[ -n ${!variable:-} ]] || case $variable in
      TPU_ZONE) fail "no zone; got no TPU_ZONE; set it, for instance to us-central1-a" ;;
      TPU_TYPE) fail "no accelerator type; got no TPU_TYPE; choose one of: gcloud compute tpus accelerator-types list --zone=$TPU_ZONE" ;;
      TPU_RUNTIME) fail "no software version; got no TPU_RUNTIME; choose the one for your type of: gcloud compute tpus tpu-vm versions list --zone=$TPU_ZONE" ;;
    esac
  done
}

create() {
  need TPU_TYPE TPU_RUNTIME
  local spot=()
  [[ ${TPU_SPOT:-0} != 1 ]] || spot=(--spot)
  if [[ ${TPU_QUEUED:-0} == 1 ]]; then
    tpus queued-resources create "$name" --node-id="$name" --accelerator-type="$TPU_TYPE" \
      --runtime-version="$TPU_RUNTIME" "${spot[@]}" || return
  else
    tpus tpu-vm create "$name" --accelerator-type="$TPU_TYPE" --version="$TPU_RUNTIME" "${spot[@]}" || return
  fi
  [[ ${DRY_RUN:-0} == 1 ]] || wait_until_ready
}

wait_until_ready() {
  local now
  while true; do
    now=$(state)
    case $now in
      READY) return ;;
      FAILED) fail "the TPU VM cannot be made; got state $now of $name; see: gcloud compute tpus queued-resources describe $name --zone=$TPU_ZONE" ;;
    esac
    say "$name is $now; waiting until it is READY"
    sleep "$poll"
  done
}

delete() {
  if [[ ${TPU_QUEUED:-0} == 1 ]]; then
    tpus queued-resources delete "$name" --force --quiet
  else
    tpus tpu-vm delete "$name" --quiet
  fi
}

setup() {
  local archive install
  archive=$(mktemp "${TMPDIR:-/tmp}/robust_jax.XXXXXX")
  act tar -C "$here/.." --exclude=./.git --exclude=./.venv --exclude=./runs -czf "$archive" .
  tpus tpu-vm scp "$archive" "$name:$code_dir.tgz" --worker="$worker" || return
  rm -f "$archive"
  # Some images have an older Python than robust_jax needs.
  install="set -e; mkdir -p $code_dir; tar -xzf $code_dir.tgz -C $code_dir; cd $code_dir"
  install+='; new_enough="import sys; sys.exit(sys.version_info < (3, 11))"'
  # shellcheck disable=SC2016 # expanded on the VM
  install+='; if ! [ -x .venv/bin/python ] && ! { python3 -c "$new_enough" && python3 -m venv .venv; }'
  install+='; then rm -rf .venv; python3 -m pip install --quiet --user uv'
  install+='; python3 -m uv venv --seed --python 3.11 .venv; fi'
  # shellcheck disable=SC2016
  install+='; pip() { .venv/bin/python -m pip install --quiet "$@"; }'
  install+='; pip -r requirements.txt -r requirements-tpu.txt -c constraints.txt; pip --no-deps --editable .'
  on_vm "$install"
}

# Starts the program on every worker where it does not run already.
start() {
  local program
  program=$(quoted .venv/bin/python -m robust_jax.main "${arguments[@]}" "${options[@]}")
  on_vm "cd $code_dir && $(quoted RESTARTS="${RESTARTS:-5}" PAUSE="${PAUSE:-10}" \
    GRACE="${GRACE:-110}") JAX_PLATFORMS=tpu,cpu launch/restart.sh --detach ../$run_dir -- $program"
}

stop() { on_vm "$code_dir/launch/restart.sh --stop $run_dir"; }

logs() { on_vm "tail -n ${LINES:-50} $run_dir/log | sed \"s/^/\$(hostname): /\""; }

make_again() {
  say "$name was preempted; making it again"
  delete || say "$name could not be deleted; going on"
  until create; do
    say "$name cannot be made now; trying again in $poll s"
    sleep "$poll"
  done
  for _ in 1 2 3 4 5; do # a new VM does not answer at once
    if setup; then return; fi
    sleep "$poll"
  done
  fail "the new TPU VM does not answer; got no setup of $name in 5 tries; look at it, then resume"
}

run() {
  need TPU_TYPE TPU_RUNTIME
  if [[ ${DRY_RUN:-0} != 1 ]]; then
    case $(state) in
      READY) ;;
      ABSENT) fail "no such TPU VM; got $name in $TPU_ZONE; make it: $script create $name, then setup" ;;
      PREEMPTED | TERMINATED | SUSPENDED) make_again ;;
      *) wait_until_ready ;;
    esac
  fi
  start
  [[ ${DRY_RUN:-0} == 1 ]] || watch
}

# Looks at the VM and at its workers until all have ended.
watch() {
  local now said failed
  say "watching $name every $poll s; Ctrl-C ends only that. Output: $script logs $name"
  while true; do
    sleep "$poll"
    now=$(state) || continue
    case $now in
      READY) ;;
      PREEMPTED | TERMINATED | SUSPENDED)
        make_again
        start
        continue
        ;;
      ABSENT) fail "the TPU VM is gone; got ABSENT for $name in $TPU_ZONE; make it: $script create $name, then setup and resume" ;;
      *) continue ;;
    esac
    said=$(ask tpu-vm ssh "$name" --worker="$worker" \
      --command="$code_dir/launch/restart.sh --status $run_dir") || continue
    said=$(grep -Eo '(running|absent|exit [0-9]+)$' <<<"$said") || continue
    if failed=$(grep -vE '^(running|absent|exit (0|75))$' <<<"$said"); then
      say "a worker has failed; stopping all; see: $script logs $name"
      stop || true
      exit "${failed##* }"
    elif grep -qE '^(absent|exit 75)$' <<<"$said"; then
      say "it was interrupted; starting it again"
      start || true
    elif ! grep -q '^running$' <<<"$said"; then
      say "finished"
      return
    fi
  done
}

main() {
  local verb=${1:-} known="create, setup, run, resume, logs, stop, delete"
  case $verb in
    create | setup | run | resume | logs | stop | delete) ;;
    -h | --help | help)
      usage
      exit
      ;;
    *) fail "unknown verb; got '$verb'; use one of $known" ;;
  esac
  name=${2:-}
  [[ -n $name && $name != -* ]] || fail "no name of the TPU VM; got '$name'; write $script $verb NAME"
  shift 2
  if [[ ${1:-} == --dry-run ]]; then
    DRY_RUN=1
    shift
  fi
  poll=${POLL:-60}
  need TPU_ZONE
  arguments=()
  if [[ $verb == run || $verb == resume ]]; then
    [[ ${1:-} == -- ]] || fail "no arguments of the program; got '$*'; write $script $verb NAME -- --config configs/X.py --workdir gs://BUCKET/DIR"
    shift
    check_program "$script" "$@"
    case $workdir in
      gs://*) ;;
      /*) say "$workdir must be a disk that outlives the VM, the same one on every worker" ;;
      *) fail "the workdir would be lost with the VM; got --workdir $workdir; use gs://BUCKET/DIR, or an absolute path on a shared disk" ;;
    esac
    arguments=("$@")
    verb=run
  elif (($#)); then
    fail "unexpected arguments of $verb; got '$*'; write $script $verb NAME"
  fi
  "$verb"
}
