#!/bin/sh
# Makes the empty database that sqlx checks the queries against while the crate is built.
set -eu
cd "$(dirname "$0")/.."
database=${1:-target/dev.db}
mkdir -p "$(dirname "$database")"
rm -f "$database"
cat migrations/*.sql | sqlite3 "$database"
