#!/usr/bin/env bash
# Whether the committed query data (.sqlx) is what the queries and migrations make now.
# With --write, makes it so.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/install.sh sqlite3:/usr/bin/sqlite3
fresh=target/sqlx-fresh
rm -rf "$fresh"
mkdir -p "$fresh"
scripts/dev-database.sh target/check.db
# The queries are looked at when the crate is compiled, so it must be.
touch src/lib.rs
DATABASE_URL="sqlite:$PWD/target/check.db" SQLX_OFFLINE=false SQLX_OFFLINE_DIR="$PWD/$fresh" cargo check --quiet
if [ "${1:-}" = --write ]; then
    rm -rf .sqlx
    cp -r "$fresh" .sqlx
elif ! diff -r .sqlx "$fresh"; then
    echo "the committed query data is not what the queries make: run  make queries  and commit .sqlx" >&2
    exit 1
fi
