#!/usr/bin/env bash
# Runs promtool, which checks Prometheus rules. If it is not installed, it is taken out of Debian's package
# without installing that, because the package brings a server that nobody asked for.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { echo "promtool: $*" >&2; }

if command -v promtool >/dev/null; then exec promtool "$@"; fi
tools=target/tools
if [ ! -x "$tools/promtool" ]; then
    if ! command -v apt-get >/dev/null; then
        say "promtool is missing: install Prometheus's tools in this system's way and try again"
        exit 1
    fi
    say "taking promtool out of Debian's package prometheus (once)"
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    chmod 755 "$work" # apt's own user fetches
    fetch() { (cd "$work" && apt-get download prometheus) >"$work/log" 2>&1; }
    if ! fetch; then
        # The package lists may be missing or old.
        if [ "$(id -u)" -eq 0 ]; then apt-get update >/dev/null 2>&1; else sudo -n apt-get update >/dev/null 2>&1; fi || true
        if ! fetch; then
            tail -n 5 "$work/log" >&2
            say "the package cannot be fetched. Run this as root and try again:  apt-get update"
            exit 1
        fi
    fi
    dpkg-deb -x "$work"/prometheus_*.deb "$work/files"
    mkdir -p "$tools"
    mv "$work/files/usr/bin/promtool" "$tools/promtool"
fi
exec "$tools/promtool" "$@"
