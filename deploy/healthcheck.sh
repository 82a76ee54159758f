#!/bin/sh
# Docker's health check: /health of the server, where it really listens (flags win over PORT; with
# --hostname, at that address alone). The settings of a running server lie in its runtime directory.
set -eu

settings=$(cat /tmp/millrace-*/settings.json 2>/dev/null || true)
port=$(printf '%s' "$settings" | sed -n 's/.*"port":\([0-9]*\).*/\1/p' | tail -n 1)
host=$(printf '%s' "$settings" | sed -n 's/.*"hostname":"\([^"]*\)".*/\1/p' | tail -n 1)
case "$host" in
    "" | 0.0.0.0 | ::) host=localhost ;;
    *:*) host="[$host]" ;;
esac
exec curl -fsS -o /dev/null --max-time 4 "http://$host:${port:-${PORT:-80}}/health"
