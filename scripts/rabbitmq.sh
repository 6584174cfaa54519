#!/usr/bin/env bash
# A private RabbitMQ node: in a folder of its own, on free ports of 127.0.0.1, beside whatever else
# runs on the machine. Nothing system-wide is touched, apart from installing the Debian package.
#
#   scripts/rabbitmq.sh install        install rabbitmq-server if it is missing
#   scripts/rabbitmq.sh start FOLDER   start a node in FOLDER and print its AMQP URL
#   scripts/rabbitmq.sh stop FOLDER    stop it and everything that it started
#   scripts/rabbitmq.sh kill FOLDER    kill -9 it, as a crash would
#   scripts/rabbitmq.sh resume FOLDER  start it again on the same ports, with its queues
#   scripts/rabbitmq.sh ctl FOLDER …   rabbitmqctl on it
set -euo pipefail

bin=${RABBITMQ_BIN:-/usr/lib/rabbitmq/bin} # not /usr/sbin: that wrapper changes to another user

say() { echo "rabbitmq: $*" >&2; }
fail() { say "$*"; exit 1; }

install() {
    [ -x "$bin/rabbitmq-server" ] || "$(dirname "$0")/install.sh" "rabbitmq-server:$bin/rabbitmq-server"
}

is_free() { ! (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# Below the ports that the system gives to outgoing connections.
free_port() {
    local port
    for _ in $(seq 200); do
        port=$((20000 + RANDOM % 10000))
        if is_free "$port"; then echo "$port"; return 0; fi
    done
    fail "no free port between 20000 and 29999"
}

environment() {
    folder=$(cd "$1" && pwd)
    # shellcheck disable=SC1091
    . "$folder/ports"
    export HOME="$folder/home" # the Erlang cookie is kept there
    export RABBITMQ_NODENAME="settled-$amqp_port@localhost"
    export RABBITMQ_NODE_IP_ADDRESS=127.0.0.1 RABBITMQ_NODE_PORT="$amqp_port"
    export RABBITMQ_DIST_PORT="$dist_port" ERL_EPMD_PORT="$epmd_port" ERL_EPMD_ADDRESS=127.0.0.1
    export RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="-kernel inet_dist_use_interface {127,0,0,1}"
    export RABBITMQ_CTL_ERL_ARGS="-kernel inet_dist_use_interface {127,0,0,1}"
    export RABBITMQ_MNESIA_BASE="$folder/data" RABBITMQ_LOG_BASE="$folder/log"
    export RABBITMQ_LOGS="$folder/log/node.log" RABBITMQ_PID_FILE="$folder/pid"
    export RABBITMQ_CONF_ENV_FILE="$folder/conf/env.conf" # empty, so that /etc is not read
    export RABBITMQ_CONFIG_FILE="$folder/conf/rabbitmq.conf"
    export RABBITMQ_ADVANCED_CONFIG_FILE="$folder/conf/advanced.config"
    export RABBITMQ_ENABLED_PLUGINS_FILE="$folder/conf/plugins"
    export RABBITMQ_GENERATED_CONFIG_DIR="$folder/conf/generated" RABBITMQ_SCHEMA_DIR="$folder/schema"
    export ERL_CRASH_DUMP="$folder/log/crash.dump" LANG=C.UTF-8
}

launch() {
    rm -f "$folder/pid"
    setsid "$bin/rabbitmq-server" >"$folder/log/startup.log" 2>&1 </dev/null &
    if ! "$bin/rabbitmqctl" -q wait --timeout 90 "$folder/pid" >>"$folder/log/startup.log" 2>&1; then
        tail -n 20 "$folder/log/startup.log" >&2
        return 1
    fi
}

start() {
    mkdir -p "$1"
    chmod 700 "$1"
    mkdir -p "$1"/home "$1"/data "$1"/log "$1"/conf "$1"/schema
    : >"$1/conf/env.conf"
    echo "[]." >"$1/conf/plugins"
    local amqp dist epmd
    for _ in 1 2 3; do
        amqp=$(free_port) dist=$(free_port) epmd=$(free_port)
        if [ "$amqp" = "$dist" ] || [ "$amqp" = "$epmd" ] || [ "$dist" = "$epmd" ]; then continue; fi
        printf 'amqp_port=%s dist_port=%s epmd_port=%s\n' "$amqp" "$dist" "$epmd" >"$1/ports"
        cat >"$1/conf/rabbitmq.conf" <<CONF
listeners.tcp.1 = 127.0.0.1:$amqp
loopback_users.guest = true
vm_memory_high_watermark.absolute = 2GB
disk_free_limit.absolute = 50MB
log.file.level = info
CONF
        environment "$1"
        if launch; then
            echo "amqp://guest:guest@127.0.0.1:$amqp/%2f"
            return 0
        fi
        say "the node did not start; trying other ports"
        stop "$1"
    done
    fail "no node could be started; see $1/log"
}

stop() {
    [ -f "$1/ports" ] || return 0
    environment "$1"
    if [ -s "$folder/pid" ] && kill -0 "$(cat "$folder/pid")" 2>/dev/null; then
        "$bin/rabbitmqctl" -q stop "$folder/pid" >/dev/null 2>&1 || kill -9 "$(cat "$folder/pid")" 2>/dev/null || true
    fi
    # The name server that the node started goes with it.
    epmd -port "$epmd_port" -kill >/dev/null 2>&1 || true
}

command=${1:-}
case $command in
    install) install ;;
    start | stop | kill | resume | ctl)
        [ $# -ge 2 ] || fail "$command needs a folder"
        folder=$2
        case $command in
            start) install; start "$folder" ;;
            stop) stop "$folder" ;;
            kill) environment "$folder"; kill -9 "$(cat "$folder/pid")" ;;
            resume) environment "$folder"; launch; echo "amqp://guest:guest@127.0.0.1:$amqp_port/%2f" ;;
            ctl) environment "$folder"; shift 2; exec "$bin/rabbitmqctl" "$@" ;;
        esac
        ;;
    *) sed -n '2,11p' "$0" >&2; exit 2 ;;
esac
