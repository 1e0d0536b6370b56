#!/usr/bin/env bash
# Runs a command until it ends well; the same command resumes.
#   launch/restart.sh -- COMMAND ARGS                here and now
#   launch/restart.sh --detach DIR -- COMMAND ARGS   in the background; output in DIR/log
#   launch/restart.sh --status DIR | --stop DIR      of what was detached
# Exit code 75 (it was asked to stop and saved a checkpoint) starts it again at once; any other but 0
# up to RESTARTS times (5), PAUSE seconds apart (10). On SIGTERM or Ctrl-C the command gets SIGTERM,
# and SIGKILL after GRACE seconds (110); then this ends with 75, or 0 where the command did.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$here/common.sh"

usage="write: launch/restart.sh [--detach DIR] -- COMMAND ARGS"
restarts=${RESTARTS:-5} pause=${PAUSE:-10} grace=${GRACE:-110}
for number in "$restarts" "$pause" "$grace"; do
  [[ $number =~ ^[0-9]+$ ]] || fail \
    "RESTARTS, PAUSE and GRACE are whole numbers; got '$number'; set for instance RESTARTS=5"
done

alive() {
  local pid
  pid=$(cat "$1/pid" 2>/dev/null) || return 1
  # After a reboot the number may be another program's.
  [[ $(ps -ww -p "$pid" -o args= 2>/dev/null) == *restart.sh* ]]
}

status() {
  if alive "$1"; then
    echo "running"
  elif [[ -e $1/exit ]]; then
    echo "exit $(cat "$1/exit")"
  else
    echo "absent"
  fi
}

detach() {
  local state=$1
  shift
  mkdir -p "$state"
  if alive "$state"; then
    say "$(hostname): runs already"
    return
  fi
  rm -f "$state/exit"
  RESTART_STATE=$state nohup setsid "$here/restart.sh" -- "$@" >>"$state/log" 2>&1 </dev/null &
  echo $! >"$state/pid"
  say "$(hostname): started; its output is in $state/log"
}

stop() {
  alive "$1" || return 0
  kill -TERM "$(cat "$1/pid")"
  while alive "$1"; do sleep 0.2; done
}

stopping=0 child='' killer=''
ask_to_stop() {
  stopping=1
  [[ -n $child ]] || return 0
  kill -TERM "$child" 2>/dev/null || true
  (sleep "$grace" && kill -KILL "$child") >/dev/null 2>&1 &
  killer=$!
}

once() {
  "$@" &
  child=$!
  await "$child"
  child=''
  if [[ -n $killer ]]; then kill "$killer" 2>/dev/null || true; fi
}

finish() {
  [[ -z ${RESTART_STATE:-} ]] || echo "$1" >"$RESTART_STATE/exit"
  exit "$1"
}

forever() {
  local crashes=0
  trap ask_to_stop TERM INT
  while true; do
    once "$@"
    ((code != 0)) || finish 0
    if ((stopping)); then
      say "stopped (exit code $code); the same command goes on from the last checkpoint"
      finish 75
    fi
    if ((code == 75)); then
      say "it was stopped and has saved a checkpoint; starting it again"
      continue
    fi
    ((crashes < restarts)) || break
    crashes=$((crashes + 1))
    say "failed with exit code $code; restart $crashes of $restarts in $pause s"
    sleep "$pause" &
    wait $! || true
    ((!stopping)) || finish 75
  done
  say "failed with exit code $code after $restarts restarts; giving up"
  finish "$code"
}

mode=run state=''
case ${1:-} in
  --detach | --status | --stop)
    mode=${1#--} state=${2:-}
    [[ -n $state && $state != -- ]] || fail "$1 has no directory; got '$state'; write $1 DIR"
    shift 2
    ;;
esac
case $mode in
  status | stop)
    "$mode" "$state"
    exit
    ;;
esac
[[ ${1:-} == -- && $# -gt 1 ]] || fail "no command; got '$*'; $usage"
shift
export PYTHONUNBUFFERED=1 # a log shows what is printed when it is
if [[ $mode == detach ]]; then detach "$state" "$@"; else forever "$@"; fi
