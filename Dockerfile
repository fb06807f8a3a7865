# Two stages: the first has compilers and pip's leftovers, the second only what runs.
FROM python:3.12-slim AS build
WORKDIR /src
RUN python -m venv /opt/gateway
ENV PATH=/opt/gateway/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
# The hot path is compiled; the headers of Python are there.
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
# Dependencies first: they change less often than the code, and this layer is kept as long as they do not.
COPY pyproject.toml setup.py README.md ./
COPY gateway/__init__.py gateway/
RUN mkdir loaders && touch loaders/__init__.py && GATEWAY_COMPILE=never pip install '.[analysis,s3,kafka,signing]' && pip uninstall -y model-serving-gateway
COPY gateway gateway
COPY loaders loaders
RUN GATEWAY_COMPILE=require pip install --no-deps .

FROM python:3.12-slim
# Models that normalise texts need a locale; ONNX's default is en_US.
RUN apt-get update && apt-get install -y --no-install-recommends locales && rm -rf /var/lib/apt/lists/* \
    && localedef -i en_US -f UTF-8 en_US.UTF-8
RUN groupadd --gid 10001 gateway \
    && useradd --uid 10001 --gid gateway --no-create-home --home-dir /data --shell /usr/sbin/nologin gateway \
    && mkdir /data /models && chown gateway:gateway /data
COPY --from=build /opt/gateway /opt/gateway
# Inside a container the loopback address is nobody's: the container's own network decides who can connect.
ENV PATH=/opt/gateway/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    GATEWAY_HOST=0.0.0.0 \
    GATEWAY_INSECURE=true \
    GATEWAY_MODEL_REPOSITORY=/models \
    GATEWAY_DATA_DIR=/data
USER 10001:10001
WORKDIR /data
VOLUME ["/data"]
EXPOSE 8000 8001 8002
STOPSIGNAL SIGTERM
# Ready: every worker has loaded its models and listens.
HEALTHCHECK --interval=5s --timeout=3s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8002/readyz', timeout=2)"]
ENTRYPOINT ["gateway"]
CMD ["serve"]
