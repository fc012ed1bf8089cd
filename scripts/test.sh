#!/usr/bin/env bash
# Environment, lint, types, tests, from nothing: bash scripts/test.sh [options of pytest, such as -m "not slow"].
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/environment.sh requirements-dev.txt

ruff check .
ruff format --check .
mypy
# A process for each core, a file of tests at a time in each; one thread in each, or they wait for each other.
OMP_NUM_THREADS=1 python -m pytest -n auto --dist loadfile --no-loadscope-reorder "$@"
