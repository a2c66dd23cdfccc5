#!/usr/bin/env bash
# Lint, types and the fast tests side by side: what a person runs while editing.
set -uo pipefail
cd "$(dirname "$0")/.."
bin=.venv/bin

rm -rf .pytest_cache/d/dtjob-figures
types=$(mktemp)
trap 'rm -f "$types"' EXIT
"$bin/mypy" >"$types" 2>&1 &
mypy=$!

failed=0
"$bin/ruff" check --quiet . || failed=1
"$bin/ruff" format --check --quiet . || { echo "run: .venv/bin/ruff format ."; failed=1; }
# Three on two cores: some tests wait.
"$bin/python" -m pytest -q -n 3 --tier=check "$@" || failed=1
wait "$mypy" || failed=1
cat "$types"
echo "check: $SECONDS s, lint and types included"
exit "$failed"
