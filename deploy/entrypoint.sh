#!/bin/sh
# The image's entry point: settles what only a container raises (port, cache), then becomes Millrace,
# which gets all arguments.
set -eu

# What lands in the cache stays writable for other user ids of group 0.
umask 0002

# The image's PORT=80 must not win over a port that the platform chose. SageMaker starts containers
# with the one argument "serve" and calls port 8080 unless it says otherwise.
port=80
if [ "$*" = serve ]; then port=8080; fi
if [ "${PORT:-80}" = 80 ]; then
    export PORT="${AIP_HTTP_PORT:-${SAGEMAKER_BIND_TO_PORT:-$port}}"
fi

# A directory of somebody else, mounted over an empty cache, must not keep the server from starting.
# One that holds models is used even if it cannot be written.
cache=${HUGGINGFACE_HUB_CACHE:-/data}
if [ -d "$cache" ] && [ ! -w "$cache" ] && [ -z "$(ls -d "$cache"/models--* 2>/dev/null)" ]; then
    export HUGGINGFACE_HUB_CACHE=/tmp/models
    echo "millrace: user $(id -u) cannot write to $cache: models that are downloaded go to" \
        "$HUGGINGFACE_HUB_CACHE and are lost with the container; to keep them, let the directory" \
        "belong to user $(id -u), or to group 0 with mode 775" >&2
fi

exec millrace "$@"
