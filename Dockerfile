# Two stages: the first has compilers and pip's leftovers, the second only what runs.
FROM python:3.12-slim-bookworm AS build
WORKDIR /src
RUN python -m venv /opt/gateway
# The versions that the tests ran with, also for what builds the package.
ENV PATH=/opt/gateway/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_CONSTRAINT=/src/constraints.txt
# The hot path is compiled; the headers of Python are there.
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
# Dependencies first: they change less often than the code, and this layer is kept as long as they do not.
COPY pyproject.toml setup.py README.md constraints.txt ./
COPY gateway/__init__.py gateway/
RUN mkdir loaders && touch loaders/__init__.py && GATEWAY_COMPILE=never pip install '.[analysis,s3,kafka,jwt,signing]' && pip uninstall -y model-serving-gateway
COPY gateway gateway
COPY loaders loaders
RUN GATEWAY_COMPILE=require pip install --no-deps .

FROM python:3.12-slim-bookworm
# tini is process 1: it hands signals on and reaps the children of processes that have died. Models that normalise texts need a
# locale; ONNX's default is en_US.
RUN apt-get update && apt-get install -y --no-install-recommends locales tini && rm -rf /var/lib/apt/lists/* \
    && localedef -i en_US -f UTF-8 en_US.UTF-8
RUN groupadd --gid 10001 gateway \
    && useradd --uid 10001 --gid gateway --no-create-home --home-dir /data --shell /usr/sbin/nologin gateway \
    && mkdir /data /models && chown gateway:gateway /data
COPY --from=build /opt/gateway /opt/gateway
# Inside a container the loopback address is nobody's, so the gateway listens on all of them, and does not start until it is told
# who may connect: TLS with tokens or client certificates, or GATEWAY_INSECURE=true for a network that is trusted.
# `docker stop` kills after ten seconds: the grace time, and five seconds for the rest, fit in. Who gives more with
# --stop-timeout can have a longer grace time.
ENV PATH=/opt/gateway/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    LANG=C.UTF-8 \
    GATEWAY_HOST=0.0.0.0 \
    GATEWAY_MODEL_REPOSITORY=/models \
    GATEWAY_DATA_DIR=/data \
    GATEWAY_GRACE_SECONDS=4
USER 10001:10001
WORKDIR /data
VOLUME ["/data"]
EXPOSE 8000 8001 8002
STOPSIGNAL SIGTERM
# Ready: a worker has loaded its models and serves. The port is the one that the running gateway has, whatever configured it.
# During the start nothing counts as unhealthy, however long models take.
HEALTHCHECK --interval=5s --timeout=5s --start-period=600s --retries=3 CMD ["python", "-P", "-m", "gateway.runtime.health_check"]
ENTRYPOINT ["tini", "--", "gateway"]
CMD ["serve"]
