#!/bin/sh
# install.sh LOCK: an environment in /opt/wslab/venv out of /supplies, whose pip is run from its wheel and not installed.
set -eu
python3 -m venv --without-pip /opt/wslab/venv
set -- "$1" /supplies/pip-*.whl
/opt/wslab/venv/bin/python "$2/pip" install --quiet --no-cache-dir --disable-pip-version-check --no-index \
    --find-links /supplies --require-hashes -r "$1.txt" || {
    echo "docker/supplies/$1 does not fit requirements/$1.txt: run ./wslab compose again" >&2
    exit 1
}
