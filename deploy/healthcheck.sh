#!/bin/sh
# Docker's health check: /health of the server, on the port that it really listens on (flags win over
# PORT). The settings of a running server lie in its runtime directory.
set -eu

settings=$(cat /tmp/millrace-*/settings.json 2>/dev/null || true)
port=$(printf '%s' "$settings" | sed -n 's/.*"port":\([0-9]*\).*/\1/p' | tail -n 1)
exec curl -fsS -o /dev/null --max-time 4 "http://localhost:${port:-${PORT:-80}}/health"
