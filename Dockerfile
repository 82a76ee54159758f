# The image of the server: docker build -t millrace . (for CPUs; --build-arg VARIANT=cuda for NVIDIA
# GPUs). docs/operations.md says how to run it.
#
#   BASE                 Debian 12 or later, or Ubuntu with Python 3.11 or 3.12; name it by digest for
#                        builds that can be repeated bit by bit
#   TORCH_INSTALL_ARGS   for pip, in CPU images: where the CPU build of torch comes from
#                        (tools/install_torch.py finds it where packages are reachable as usual)
#   --secret id=pip,src=pip.conf   pip's configuration during the build; it leaves no trace
#
# Python packages are those of deploy/locks, checked by hash. CUDA's libraries are among them, so that
# one base serves both variants.
ARG BASE=docker.io/library/debian:bookworm-slim
ARG VARIANT=cpu

FROM ${BASE} AS base
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 ca-certificates curl \
    && rm -rf /var/lib/apt/lists/* /var/cache/* /var/log/*

FROM base AS build
RUN apt-get update && apt-get install -y --no-install-recommends python3-venv gcc libc6-dev
WORKDIR /src
RUN python3 -m venv /opt/millrace && python3 -m venv /opt/tools
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
ARG VARIANT
ARG TORCH_INSTALL_ARGS=""
COPY deploy/locks deploy/locks
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    /opt/millrace/bin/pip install -q --no-deps --require-hashes --only-binary :all: \
        -r deploy/locks/server.txt
COPY tools/install_torch.py tools/
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    case "$VARIANT" in \
        cuda) /opt/millrace/bin/pip install -q --no-deps --require-hashes \
            -r deploy/locks/cuda.txt ;; \
        cpu) /opt/millrace/bin/python tools/install_torch.py --no-cuda ;; \
        *) echo "VARIANT must be cpu or cuda, not $VARIANT" >&2; exit 1 ;; \
    esac
COPY pyproject.toml README.md supervisord.conf ./
COPY common common
COPY frontend frontend
COPY scheduler scheduler
COPY worker worker
COPY launcher launcher
COPY tracer tracer
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    /opt/tools/bin/pip install -q --no-deps --require-hashes -r deploy/locks/build.txt \
    && /opt/tools/bin/pip wheel -q --no-deps --no-build-isolation -w /wheels . \
    && /opt/millrace/bin/pip install -q --no-deps --no-index /wheels/*.whl \
    && /opt/millrace/bin/pip check \
    && /opt/millrace/bin/pip uninstall -q -y uv pip 2>/dev/null
# The image has no compiler: it brings the kernels of every processor.
RUN /opt/millrace/bin/python -P -c \
    'from worker.kernels.cpu.library import build_all; print(*build_all(), sep="\n")'

FROM base
# Triton compiles the launchers of its kernels, so it needs a C compiler where it runs.
ARG VARIANT
RUN if [ "$VARIANT" = cuda ]; then \
        apt-get update \
        && apt-get install -y --no-install-recommends gcc libc6-dev python3-dev \
        && rm -rf /var/lib/apt/lists/* /var/cache/* /var/log/*; \
    fi
# Any user id of group 0 may run it; weights and caches are writable for that group. Everything that
# is written at run time goes to /data (weights) and /tmp, so the rest can be mounted read-only.
RUN useradd --uid 1000 --gid 0 --home-dir /tmp --no-create-home --shell /usr/sbin/nologin millrace \
    && install -d -o 1000 -g 0 -m 0775 /data
COPY --from=build /opt/millrace /opt/millrace
COPY --chmod=0755 deploy/entrypoint.sh deploy/healthcheck.sh /usr/local/bin/
ENV PATH=/opt/millrace/bin:/usr/local/bin:/usr/bin:/bin \
    PORT=80 \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    HUGGINGFACE_HUB_CACHE=/data \
    HOME=/tmp \
    USER=millrace
WORKDIR /tmp
# Port 80 as a user who is not root needs net.ipv4.ip_unprivileged_port_start=0 in the container's
# network. Docker sets it; elsewhere (Podman, older containerd, the host's own network) set it, or
# choose a port above 1023.
EXPOSE 80 9000
USER 1000:0
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=15m --retries=3 CMD ["healthcheck.sh"]
ENTRYPOINT ["entrypoint.sh"]
