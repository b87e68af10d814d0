#!/usr/bin/env bash
# Fetches the Kafka broker that the tests run, as tests/kafka/pom.xml names it, into .kafka; at once if it is there.
# Without Java or Maven it does nothing: tests/parts.py says what becomes of the tests.
set -euo pipefail
cd "$(dirname "$0")/.."

command -v java >/dev/null && command -v mvn >/dev/null || exit 0
stamp=$(sha256sum <tests/kafka/pom.xml)
mkdir -p .kafka
exec 9>.kafka/lock
flock 9
[ "$(cat .kafka/.made-from 2>/dev/null || true)" != "$stamp" ] || exit 0
echo "Fetching Apache Kafka for the tests into .kafka"
rm -rf .kafka/lib .kafka/.made-from
mvn --quiet --batch-mode --file tests/kafka/pom.xml dependency:copy-dependencies \
    -DoutputDirectory="$PWD/.kafka/lib" -DincludeScope=runtime
echo "$stamp" >.kafka/.made-from
