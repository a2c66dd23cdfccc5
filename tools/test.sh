#!/usr/bin/env bash
# What `make test` runs after the checks: all of it, whatever fails, so that one run tells everything.
set -uo pipefail
cd "$(dirname "$0")/.."
python=.venv/bin/python

# Ctrl-C is for all of it: pytest ends in order and would tell of it by a plain exit code.
trap "exit 130" INT TERM
failed=0
# Three on two cores: they wait for more than half of the time.
"$python" -m pytest --tier=models,processes,docs -m "not cluster" -n 3 --dist loadgroup || failed=1
"$python" -m pytest --tier=cluster,pods,docs -m cluster -n auto --dist loadgroup --no-loadscope-reorder || failed=1
PYTHONPATH=tools "$python" -m testing.budget || failed=1
exit "$failed"
