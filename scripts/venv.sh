#!/bin/sh
# Make the virtual environment that the Makefile works in: sh scripts/venv.sh FOLDER
# Says in one sentence what is missing where it cannot.
set -eu
venv=$1

python=
for candidate in "${PYTHON:-}" python3 python3.13 python3.12 python3.11 python3.14; do
    [ -n "$candidate" ] || continue
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        python=$candidate
        break
    fi
done
if [ -z "$python" ]; then
    echo "torchship needs Python 3.11 or newer, and none is on PATH; name one with make PYTHON=..." >&2
    exit 1
fi

# Debian splits ensurepip off into python3-venv; the system's pip can then fill the environment.
rm -rf "$venv"
if "$python" -m venv "$venv" 2>/dev/null; then
    pip() { "$venv/bin/python" -m pip "$@"; }
elif rm -rf "$venv" && "$python" -m venv --without-pip "$venv" && "$python" -m pip --version >/dev/null 2>&1; then
    pip() { "$python" -m pip --python "$venv/bin/python" "$@"; }
else
    echo "$python can make no virtual environment with pip: install python3-venv, then try again" >&2
    exit 1
fi

echo "setting up $venv with $("$python" --version)" >&2
pip install --quiet --disable-pip-version-check --editable '.[dev]'
