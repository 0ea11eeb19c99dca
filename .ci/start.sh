#!/usr/bin/env bash
# Starts the station as a stranger would, waits until it says that it is ready, stops it as Ctrl+C does, and
# checks that a second start installs nothing and that nothing is left running.
set -euo pipefail

start_and_stop() {
  local output="$1"
  npm start >"$output" 2>&1 &
  local npm=$!
  for _ in $(seq 600); do
    grep -q "The station is ready" "$output" && break
    kill -0 "$npm" 2>/dev/null || break
    sleep 0.2
  done
  cat "$output"
  grep -q "The station is ready" "$output"
  kill -INT "$npm"
  # A stop that takes this long has failed; what is left is then found below, and CI does not hang on it.
  (sleep 60 && kill -KILL "$npm") 2>/dev/null &
  local watch=$!
  local code=0
  wait "$npm" || code=$?
  kill "$watch" 2>/dev/null || true
  if [ "$code" -ne 0 ]; then
    echo "npm start ended with exit code $code"
    exit 1
  fi
}

first=$(mktemp) second=$(mktemp)
trap 'rm -f "$first" "$second"' EXIT
start_and_stop "$first"
start_and_stop "$second"
if grep -q "installing" "$second"; then
  echo "the second start installed something"
  exit 1
fi
if grep -lsF "PUGMARK_HOME=$PWD" /proc/[0-9]*/environ; then
  echo "processes of the station are left"
  exit 1
fi
