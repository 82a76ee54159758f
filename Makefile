# make serve                       the server on port 8080, with the built-in model
# make serve MODEL=org/name PORT=8081 ARGS="--prometheus-port 9001 --max-total-tokens 4096"
# make test                        style, types, import contracts, all tests
# make test-clients                the official clients, in Python and JavaScript, against a server
# make operate-test                playground in a browser, Prometheus, compose, balancers
# make image-test                  the container image: built, started, asked, stopped (as root)
# make models-test                 every decoder of transformers; writes docs/supported_models.md
# make chaos                       every process killed, stopped, starved; a table of what was noticed
# make overload                    the part of it with ten times the load; prints the goodput
# make bench                       tokens per second on a random 135 M model: bench/README.md
# make gpu-bench                   on a machine with a GPU: over HTTP and bare, beside floors; in minutes
# make bench-peers                 the same beside every peer that is installed; a table and a plot
# make peers                       installs the peers under bench/peers-env (5 GB, half an hour)
# make pipeline                    what everything around the model costs, with a model of no cost
# make gpu-test                    the worker's kernels and tiny models on the GPU of this machine
# make gpu-all                     both in one command with a limit: 560 s, or ARGS="--seconds 300"
# make gpu-compile                 every GPU kernel compiled for Hopper, without a GPU; a table
# make gpu-emulate                 the GPU path on a device that is emulated: bench/README.md says how
# make gpu-host                    what steps cost the host of a GPU, on one that computes nothing
# make soak                        a million requests (or 10 minutes): memory flat, nothing left
# make docs                        docs/settings.md, docs/metrics.md from what is declared
# make manifests                   deploy/kubernetes/manifests from the Helm chart
#
# Everything is installed into .venv, once; again when pyproject.toml changes. PYTHON=… chooses the
# interpreter, TORCH_INSTALL_ARGS=… is handed to pip when torch is installed (see
# tools/install_torch.py).

SHELL := /bin/bash
VENV := .venv
OLD_VENV := .venv-text-generation
JS := tests/clients/js
PORT = 8080
MODEL =
ARGS =
TEST_PROCESSES = 2
PIP = $(VENV)/bin/python -m pip --disable-pip-version-check install -q
# The user's own python3 first, then others that may be there; each is tried, not just looked for.
PYTHON ?= $(shell for name in python3 python3.12 python3.11; do \
	$$name -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' \
	2>/dev/null && echo $$name && break; done)
WRONG_PYTHON = Python 3.11 or 3.12 with its venv module is needed: install one, or run make PYTHON=…

.PHONY: serve test test-clients operate-test image-test models-test chaos bench bench-peers peers
.PHONY: overload pipeline gpu-test gpu-bench gpu-all gpu-compile gpu-emulate gpu-host soak docs manifests clean

serve: $(VENV)/.installed
	@exec $(VENV)/bin/millrace --port $(PORT) $(if $(MODEL),--model-id "$(MODEL)") $(ARGS)

test: $(VENV)/.installed-for-tests
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
	$(VENV)/bin/python -m pytest --numprocesses $(TEST_PROCESSES) --dist loadfile \
		--no-loadscope-reorder --max-worker-restart 0 $(ARGS)

test-clients: $(VENV)/.installed-for-clients $(OLD_VENV)/.installed $(JS)/node_modules/.installed
	$(VENV)/bin/python -m pytest tests/clients $(ARGS)

operate-test: $(VENV)/.installed-for-operate
	$(VENV)/bin/python -m pytest tests/operate --ignore tests/operate/test_image.py $(ARGS)

image-test: $(VENV)/.installed-for-tests
	nice $(VENV)/bin/python -m pytest tests/operate/test_image.py $(ARGS)

models-test: $(VENV)/.installed-for-tests
	$(VENV)/bin/python -m pytest tests/breadth $(ARGS)

chaos: $(VENV)/.installed-for-tests
	timeout --signal=INT 900 $(VENV)/bin/python -m pytest tests/chaos $(ARGS)

overload: $(VENV)/.installed-for-tests
	$(VENV)/bin/python -m pytest tests/chaos/test_overload.py $(ARGS)

bench: $(VENV)/.installed-for-bench
	$(VENV)/bin/python -m bench.peers --only machine steps engine $(ARGS)

gpu-bench: $(VENV)/.installed-for-bench
	@$(VENV)/bin/python -m bench.gpu $(ARGS)

bench-peers: $(VENV)/.installed-for-bench
	$(VENV)/bin/python -m bench.peers $(ARGS)

peers: $(VENV)/.installed-for-bench
	nice $(VENV)/bin/python -m bench.peers.install $(ARGS)

pipeline: $(VENV)/.installed-for-tests
	$(VENV)/bin/python -m bench.pipeline $(ARGS)

gpu-test: $(VENV)/.installed-for-tests
	$(VENV)/bin/python -m pytest tests/gpu $(ARGS)

gpu-all: $(VENV)/.installed-for-tests $(VENV)/.installed-for-bench
	@$(VENV)/bin/python -m bench.gpu.all $(ARGS)

gpu-compile: $(VENV)/.installed-for-tests
	TRITON_INTERPRET=0 PYTHONPATH=. $(VENV)/bin/python tests/worker/kernels/triton/compiling.py

gpu-emulate: $(VENV)/.installed-for-tests
	$(VENV)/bin/python -m tests.emulated $(ARGS)

gpu-host: $(VENV)/.installed-for-tests
	$(VENV)/bin/python -m tests.emulated.host $(ARGS)

soak: $(VENV)/.installed-for-tests
	timeout --signal=INT 900 $(VENV)/bin/python -m bench.soak $(ARGS)

docs: $(VENV)/.installed
	$(VENV)/bin/python -m launcher.reference > docs/settings.md
	$(VENV)/bin/python -m scheduler.reference > docs/metrics.md

manifests: $(VENV)/.installed-for-tests
	$(VENV)/bin/python deploy/kubernetes/render.py

clean:
	rm -rf $(VENV) $(OLD_VENV) $(JS)/node_modules
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(VENV)/.installed: pyproject.toml tools/install_torch.py
	@test -n "$(PYTHON)" || { echo "$(WRONG_PYTHON)" >&2; exit 1; }
	@$(VENV)/bin/python -c 'import pip' 2>/dev/null || $(PYTHON) -m venv --clear $(VENV) \
		|| { echo "$(WRONG_PYTHON)" >&2; exit 1; }
	@echo "installing into $(VENV); this happens once and takes a minute or two"
	@TORCH_INSTALL_ARGS="$(TORCH_INSTALL_ARGS)" $(VENV)/bin/python tools/install_torch.py
	@$(PIP) -e '.[tracing]'
	@touch $@

$(VENV)/.installed-for-tests: $(VENV)/.installed
	@$(PIP) -e '.[test,tracing]'
	@touch $@

$(VENV)/.installed-for-bench: $(VENV)/.installed
	@$(PIP) -e '.[bench]'
	@touch $@

$(VENV)/.installed-for-clients: $(VENV)/.installed-for-tests
	@$(PIP) -e '.[clients]'
	@touch $@

$(VENV)/.installed-for-operate: $(VENV)/.installed-for-tests
	@$(PIP) -e '.[operate]'
	@touch $@

# The client of older TGI versions wants a huggingface-hub that the server cannot use.
$(OLD_VENV)/.installed: | $(VENV)/.installed
	@$(VENV)/bin/python -m venv --clear $(OLD_VENV)
	@$(OLD_VENV)/bin/python -m pip --disable-pip-version-check install -q 'text-generation==0.7.0'
	@touch $@

# Without node the rest is tested all the same, and the tests of these clients say what is missing.
$(JS)/node_modules/.installed: $(JS)/package.json $(JS)/package-lock.json
	@if command -v npm >/dev/null; then \
		npm ci --prefix $(JS) --silent --no-audit --no-fund && touch $@; fi
