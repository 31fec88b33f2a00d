# The project's commands; each makes .venv by itself and needs only python3 (>= 3.11) and make.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin

.PHONY: demo test test-real lint format bench bench-configuration bench-kubernetes bench-routing bench-picking bench-observing bench-rewriting profile fuzz soak docs lock clean
.DEFAULT_GOAL := test

$(VENV)/.stamp: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "pointsman needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable . --group test --group lint
	@touch $@

demo: $(VENV)/.stamp  ## the gateway over three simulated model servers
	@exec $(BIN)/pointsman demo

test: $(VENV)/.stamp  ## all tests, with branch coverage
	$(BIN)/python -m pytest -n 2 --dist loadfile --cov --cov-report=term $(ARGS)

test-real: $(VENV)/.stamp  ## tests with real programs: Prometheus (apt-get install prometheus)
	$(BIN)/python -m pytest -m real tests/real $(ARGS)

lint: $(VENV)/.stamp  ## what CI checks beside the tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.stamp
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

$(VENV)/.bench-stamp: $(VENV)/.stamp
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --group bench
	@touch $@

bench: $(VENV)/.bench-stamp  ## CPU, latency and memory beside Envoy's; ARGS=--quick for a rough minute
	@exec $(BIN)/python -m bench $(ARGS)

bench-configuration: $(VENV)/.stamp  ## what checking and reloading large configurations costs
	@exec $(BIN)/python -m bench.configuration

bench-rewriting: $(VENV)/.stamp  ## what breaker, retries and model rewriting cost
	@exec $(BIN)/python -m bench.rewriting $(ARGS)

bench-routing: $(VENV)/.stamp  ## time to first token by load and prompt caches, beside other balancers; nine minutes
	@exec $(BIN)/python -m bench.routing $(ARGS)

bench-picking: $(VENV)/.stamp  ## what one pick, one prompt's hashes and the reading of metrics cost
	@exec $(BIN)/python -m bench.picking $(ARGS)

bench-kubernetes: $(VENV)/.bench-stamp  ## what following a cluster of 1,000 pods and 1,000 routes costs
	@exec $(BIN)/python -m bench.kubernetes $(ARGS)

bench-observing: $(VENV)/.stamp  ## what metrics, log and traces cost, and how long a scrape holds up the rest
	@exec $(BIN)/python -m bench.observing $(ARGS)

profile: $(VENV)/.bench-stamp  ## where the gateway's time goes; LOAD=json, burst, 1mb or paced
	@exec $(BIN)/python -m bench --profile $(or $(LOAD),json) $(ARGS)

fuzz: $(VENV)/.stamp  ## the fuzzers for longer: FUZZ_EXAMPLES=5000 of each
	HYPOTHESIS_PROFILE=fuzz $(BIN)/python -m pytest tests/app/test_fuzz.py tests/middleware/test_inference_request.py \
	  --timeout 3600 $(ARGS)

soak: $(VENV)/.stamp  ## 100,000 requests that end in all ways: nothing may be left behind
	SOAK_REQUESTS=100000 $(BIN)/python -m pytest tests/app/test_lingering_state.py $(ARGS)

docs: $(VENV)/.stamp  ## the pages that are made from the code
	$(BIN)/python -m discovery.document > docs/manifests.md
	$(BIN)/python -m app.metrics_document > docs/metrics.md

lock: $(VENV)/.stamp  ## requirements.txt anew: what the image installs, by hash
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --no-header --quiet --output-file requirements.txt

clean:
	rm -rf $(VENV) .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache
