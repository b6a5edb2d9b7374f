#!/usr/bin/env bash
# One command on a bare machine with Python 3.11 or newer:
#   bash launch/local.sh film [options of `shotstream generate`]   films the demo story into film/
#   bash launch/local.sh test [options of pytest]                  runs the tests
# PYTHON names another interpreter, EXTRAS adds parts (EXTRAS=cuda on an NVIDIA GPU, EXTRAS=tpu).
set -euo pipefail
cd "$(dirname "$0")/.."

install() { # install EXTRA...: into .venv, once for each state of pyproject.toml
  local extras stamp
  extras=$(IFS=,; echo "$*")
  stamp=".venv/installed-${extras:-plain}"
  if ! cmp -s pyproject.toml "$stamp"; then
    [ -x .venv/bin/python ] || "${PYTHON:-python3}" -m venv .venv
    .venv/bin/python -m pip install --quiet --editable ".${extras:+[$extras]}"
    cp pyproject.toml "$stamp"
  fi
}

verb=${1:-}
shift || true
case $verb in
  film)
    install ${EXTRAS:-}
    .venv/bin/shotstream generate configs/stories/demo.yaml --output film --overwrite "$@"
    ;;
  test)
    install test ${EXTRAS:-}
    .venv/bin/python -m pytest "$@"
    ;;
  *)
    sed -n '2,5s/^# //p' "$0" >&2
    exit 2
    ;;
esac
