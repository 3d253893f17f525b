# shellcheck shell=sh
# Makes an environment from VENV.wheels, which goes afterwards: sh -eu install.sh VENV PYTHON. Whole when .complete is there.
# Debian's python3 has neither pip nor ensurepip: pip runs out of its own wheel, and is not installed.
venv=$1
umask 022
rm -rf "$venv"
"$2" -I -m venv --without-pip "$venv"
pip=$(echo "$venv.wheels"/pip-*.whl)
"$venv/bin/python" "$pip/pip" --isolated --disable-pip-version-check install --quiet --no-input --no-cache-dir --root-user-action ignore \
  --no-index --find-links "$venv.wheels" --require-hashes --requirement "$venv.wheels/requirements.txt"
"$venv/bin/wsnode" --version
rm -rf "$venv.wheels"
sync -f "$venv"
touch "$venv/.complete"
