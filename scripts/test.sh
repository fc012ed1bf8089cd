#!/usr/bin/env bash
# Environment, lint and tests, from nothing: bash scripts/test.sh [pytest options, such as -m "not slow"]. Rerunnable.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/environment.sh requirements-dev.txt

ruff check .
ruff format --check .
python -m pytest "$@"
