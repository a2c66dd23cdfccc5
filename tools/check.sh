#!/usr/bin/env bash
# Lint, types, who imports whom, and the fast tests side by side: what a person runs while editing.
set -uo pipefail
cd "$(dirname "$0")/.."
bin=.venv/bin

rm -rf .pytest_cache/d/dtjob-figures
types=$(mktemp)
walls=$(mktemp)
trap 'rm -f "$types" "$walls"' EXIT
"$bin/mypy" >"$types" 2>&1 &
mypy=$!
# Half a second, so that it needs no cache.
PYTHONPATH=tools "$bin/lint-imports" --no-cache --no-logo >"$walls" 2>&1 &
imports=$!

failed=0
"$bin/ruff" check --quiet . || failed=1
"$bin/ruff" format --check --quiet . || { echo "run: .venv/bin/ruff format ."; failed=1; }
# Three on two cores: some tests wait.
"$bin/python" -m pytest -q -n 3 --tier=check "$@" || failed=1
wait "$mypy" || failed=1
cat "$types"
wait "$imports" || { cat "$walls"; failed=1; }
echo "check: $SECONDS s, lint, types and imports included"
exit "$failed"
