#!/usr/bin/env bash
# Shows settled at work: a broker, the sandbox, the daemon and clients. On a terminal it stays up until
# Ctrl-C; elsewhere it ends with 0 when every job is final and the book holds. It leaves no process.
#
# With SETTLED__BROKER__URL set, that broker is used instead of a private node.
set -euo pipefail
cd "$(dirname "$0")/.."

node=""
clean_up() {
    if [ -n "$node" ]; then
        echo "demo: stopping the private RabbitMQ node"
        scripts/rabbitmq.sh stop "$node" || true
        rm -rf "$node"
    fi
}
trap clean_up EXIT

if [ -z "${SETTLED__BROKER__URL:-}" ]; then
    scripts/rabbitmq.sh install
fi
echo "demo: building (a few minutes the first time)"
SQLX_OFFLINE=true cargo build --locked --quiet

if [ -z "${SETTLED__BROKER__URL:-}" ]; then
    echo "demo: starting a private RabbitMQ node"
    node=$(mktemp -d "${TMPDIR:-/tmp}/settled-rabbitmq.XXXXXX")
    SETTLED__BROKER__URL=$(scripts/rabbitmq.sh start "$node")
    export SETTLED__BROKER__URL
fi
# Ctrl-C is for the demo, which ends everything in order; this script cleans up after it.
trap '' INT
# A file that configures another daemon is not the demo's.
unset SETTLED_CONFIG
"${CARGO_TARGET_DIR:-target}/debug/settled" demo "$@"
