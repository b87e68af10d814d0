#!/usr/bin/env bash
# Sets up a virtual environment with Tapehouse in it, editable: tools/venv.sh FOLDER CONSTRAINTS EXTRA...
#
# A stamp in the folder says what it was made from, so that a second call returns at once and a changed pin installs anew.
# PYTHON names the interpreter to use; without it the first Python from 3.11 on is taken.
set -euo pipefail
cd "$(dirname "$0")/.."

folder=$1 constraints=$2
shift 2

fail() {
    echo "tapehouse: $*" >&2
    exit 1
}

find_python() {
    local candidate
    for candidate in ${PYTHON:-python3.11 python3 python3.12 python3.13}; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    fail "no Python from 3.11 on was found (looked for ${PYTHON:-python3.11, python3, python3.12, python3.13})." \
        "On Debian: apt-get install python3 python3-venv. Another place: make PYTHON=/path/to/python3.11 ..."
}

# Debian ships venv's ensurepip in a package of its own.
make_folder() {
    if ! "$python" -c 'import venv, ensurepip' 2>/dev/null; then
        if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
            echo "Installing Debian's python3-venv, which $python lacks"
            apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends python3-venv
        else
            fail "$python cannot make virtual environments. On Debian: sudo apt-get install python3-venv"
        fi
    fi
    "$python" -m venv --clear "$folder"
}

python=$(find_python)
stamp=$folder/.made-from
made_from=$(
    pwd
    "$python" -c 'import sys; print(sys.version)'
    sha256sum pyproject.toml "$constraints"
)

# Extras that a former call installed stay, so that `make run` after `make test` has nothing to do.
installed=" "
if [ -f "$stamp" ] && [ "$(tail -n +2 "$stamp")" = "$made_from" ] && "$folder/bin/python" -c '' 2>/dev/null; then
    installed=" $(head -n 1 "$stamp") "
fi
missing=0
for extra in "$@"; do
    if [[ $installed != *" $extra "* ]]; then
        missing=1
        installed+="$extra "
    fi
done
[ $missing = 1 ] || exit 0

"$folder/bin/python" -m pip --version >/dev/null 2>&1 || make_folder
rm -f "$stamp"
read -ra extras <<<"$installed"
echo "Installing Tapehouse and what it needs (extras: ${extras[*]}) into $folder"
pip=("$folder/bin/python" -m pip --disable-pip-version-check install -q -c "$constraints")
# Without build isolation the build tool is pinned too.
"${pip[@]}" setuptools
"${pip[@]}" --no-build-isolation -e ".[$(IFS=,; echo "${extras[*]}")]"
printf '%s\n%s\n' "${extras[*]}" "$made_from" >"$stamp"
