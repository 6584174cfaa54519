#!/usr/bin/env bash
# Installs Debian packages that are missing: scripts/install.sh PACKAGE:FILE-THAT-IT-BRINGS …
# Says what it does, and where it may not, says the exact command to run instead.
set -euo pipefail

say() { echo "install: $*" >&2; }

missing=()
for wanted in "$@"; do
    [ -e "${wanted#*:}" ] || missing+=("${wanted%%:*}")
done
[ ${#missing[@]} -gt 0 ] || exit 0

command="apt-get install -y --no-install-recommends ${missing[*]}"
if ! command -v apt-get >/dev/null; then
    say "missing: ${missing[*]}. There is no apt-get here: install them in this system's way and try again"
    exit 1
fi
as_root=()
if [ "$(id -u)" -ne 0 ]; then
    if ! sudo -n true 2>/dev/null; then
        say "missing: ${missing[*]}. Run this as root and try again:  apt-get update && $command"
        exit 1
    fi
    as_root=(sudo -n)
fi

say "installing Debian's ${missing[*]} (once)"
# A package may start a service for the whole system, which nobody asked for.
policy=/usr/sbin/policy-rc.d
made_policy=""
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
    "${as_root[@]}" chmod 755 "$policy"
    made_policy=yes
fi
remove_policy() { if [ -n "$made_policy" ]; then "${as_root[@]}" rm -f "$policy"; fi; }
trap remove_policy EXIT

log=$(mktemp)
# shellcheck disable=SC2086
if ! "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive $command >"$log" 2>&1; then
    # The package lists may be missing or old.
    if ! { "${as_root[@]}" apt-get update && "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive $command; } >>"$log" 2>&1; then
        tail -n 20 "$log" >&2
        say "the installation failed (log: $log). Run this and try again:  apt-get update && $command"
        exit 1
    fi
fi
rm -f "$log"
