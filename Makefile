# Everything here works on a fresh machine with Python 3.11 or newer and make: each target installs what it needs.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
PROVIDER ?= deepinfra
# Nothing is ever taken from a model hub.
export HF_HUB_OFFLINE := 1

.DEFAULT_GOAL := help
.PHONY: help setup demo format check test bench record

help: ## what can be done here
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /\1|/' | awk -F'|' '{printf "  make %-8s %s\n", $$1, $$2}'

setup: $(STAMP) ## make .venv with everything in it

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make setup PYTHON=python3.11"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[all,test]"
	@touch $@

demo: $(STAMP) ## questions about pictures, answered through LangChain and LlamaIndex
	@$(BIN)/python -m llama_vision.demo

format: $(STAMP) ## put the code into the project's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

check: $(STAMP) ## format, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright

test: $(STAMP) ## all tests, offline
	$(BIN)/python -m pytest -n 2 --cov --cov-report=term:skip-covered $(ARGS)

bench: $(STAMP) ## what it costs, beside raw httpx and the smallest possible class
	@$(BIN)/python benchmarks/overhead.py
	@$(BIN)/python benchmarks/concurrency.py
	@$(BIN)/python benchmarks/images.py
	@$(BIN)/python benchmarks/toolcalls.py
	@$(BIN)/python benchmarks/local.py

record: $(STAMP) ## record the cassettes anew with your own key: make record PROVIDER=deepinfra
	$(BIN)/python -m pytest tests/test_cassettes.py --record-mode=rewrite -k "chat_llama_vision_delivers and [$(PROVIDER)/"
	$(BIN)/python -m pytest tests/test_cassettes.py tests/test_cassette_files.py -k "[$(PROVIDER)/"
