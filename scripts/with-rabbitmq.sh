#!/usr/bin/env bash
# Runs a command with a private RabbitMQ node, whose URL is in SETTLED_TEST_AMQP_URL, and stops the
# node afterwards, however the command ends.
set -euo pipefail
scripts=$(cd "$(dirname "$0")" && pwd)
folder=$(mktemp -d "${TMPDIR:-/tmp}/settled-rabbitmq.XXXXXX")
clean_up() {
    "$scripts/rabbitmq.sh" stop "$folder" || true
    rm -rf "$folder"
}
trap clean_up EXIT
trap 'exit 130' INT TERM
echo "starting a private RabbitMQ node" >&2
SETTLED_TEST_AMQP_URL=$("$scripts/rabbitmq.sh" start "$folder")
export SETTLED_TEST_AMQP_URL
"$@"
