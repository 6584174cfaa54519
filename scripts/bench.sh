#!/usr/bin/env bash
# Measures settled on real parts, beside the programs in benches/peers. `scripts/bench.sh --help` says what
# can be chosen. It leaves no process; results are in target/bench/results.json.
set -euo pipefail
cd "$(dirname "$0")/.."

# The peers' libraries, each version named in a file, from the registries that npm and pip are set up for.
install_peers() {
    scripts/install.sh nodejs:/usr/bin/node npm:/usr/bin/npm g++:/usr/bin/g++ make:/usr/bin/make \
        python3:/usr/bin/python3 python3-venv:/usr/lib/python3/dist-packages
    local node=benches/peers/node venv=target/bench/venv
    if ! cmp -s "$node/package-lock.json" "$node/node_modules/.installed"; then
        echo "bench: installing the Node.js peers' libraries (some are compiled)" >&2
        (cd "$node" && npm ci --no-audit --no-fund --loglevel=error >&2)
        cp "$node/package-lock.json" "$node/node_modules/.installed"
    fi
    if ! cmp -s benches/peers/python/requirements.txt "$venv/.installed"; then
        echo "bench: installing the Python peer's libraries" >&2
        python3 -m venv --clear "$venv"
        "$venv/bin/pip" install --quiet --disable-pip-version-check -r benches/peers/python/requirements.txt >&2
        cp benches/peers/python/requirements.txt "$venv/.installed"
    fi
}

# However the bench ends.
trap 'scripts/rabbitmq.sh stop target/bench/run/node || true' EXIT
trap 'exit 130' INT TERM
scripts/rabbitmq.sh install
scripts/install.sh strace:/usr/bin/strace
mkdir -p target/bench
install_peers
echo "bench: building (some minutes the first time)" >&2
SQLX_OFFLINE=true cargo bench --locked --quiet --bench load -- "$@"
