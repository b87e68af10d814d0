#!/usr/bin/env bash
# Installs the Debian packages that tests need and this machine lacks, as root; otherwise says which tests stay out.
# tests/parts.py knows what they are; with TAPEHOUSE_REQUIRE_ALL=1 a test that would be left out fails there.
set -euo pipefail
cd "$(dirname "$0")/.."

missing=$(.venv/bin/python tests/parts.py)
[ -n "$missing" ] || exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "Installing Debian packages for the tests:" $missing
    # shellcheck disable=SC2086
    if apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends $missing; then
        exit 0
    fi
fi
echo "Tests that need these Debian packages are left out:" $missing
echo "Install them to run all: sudo apt-get install" $missing
