# Everything here works on a fresh machine with Python 3.11 or newer and make: each target installs what it needs.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
OLDEST := .venv-oldest
PROVIDER ?= deepinfra
# One more than the two cores: tests wait for servers and processes a quarter of their time.
PYTEST := -m pytest -n 3 --dist worksteal
# All branches of these folders are tested; of the rest as many as pyproject.toml says (fail_under).
PURE := src/llama_vision/core/*,src/llama_vision/dialects/*,src/llama_vision/toolcalls/*,src/llama_vision/structured/*,src/llama_vision/adaptation/*
# Nothing is ever taken from a model hub.
export HF_HUB_OFFLINE := 1
# As where it is installed: else each of the hundreds of processes that tests and benchmarks start compiles the package anew.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help setup demo format check test coverage test-all test-oldest mutate bench train evaluate docs notebooks record tables

help: ## what can be done here
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1|/' | awk -F'|' '{printf "  make %-11s %s\n", $$1, $$2}'

setup: $(STAMP) ## make .venv with everything in it

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make setup PYTHON=python3.11"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[all,test]"
	@touch $@

demo: $(STAMP) ## questions about images, answered through LangChain and LlamaIndex
	@$(BIN)/python -m llama_vision.demo

format: $(STAMP) ## put the code into the project's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

check: $(STAMP) ## format, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright

test: $(STAMP) ## the tests, offline, in five minutes on two cores
	$(BIN)/python $(PYTEST) -m "not slow" $(ARGS)

coverage: $(STAMP) ## the same with branch coverage: 97% of all, 100% of what does no I/O; what must pass before a change lands
	$(BIN)/python $(PYTEST) -m "not slow" --cov --cov-report=term:skip-covered
	$(BIN)/python -m coverage report --skip-covered --fail-under=100 --include='$(PURE)'

test-all: $(STAMP) ## all tests, offline: also slow ones, and full products where `make test` runs pairs
	$(BIN)/python $(PYTEST) $(ARGS)

# Left out are LangChain's standard suites and what uses their parts (langchain-tests asks for httpx 0.28.1),
# the tests of retrieval with real embeddings, and those where the local model says what chance makes of a seed, which another
# torch makes something else of. The warnings are transformers 5.17's about its own Mllama, and those of Triton 3.1's interpreter.
test-oldest: $(OLDEST)/.installed ## the same with the oldest frameworks and libraries that are allowed
	$(OLDEST)/bin/python $(PYTEST) -W 'ignore:`hidden_state` is deprecated:FutureWarning' \
	  -W 'ignore:Conversion of an array with ndim:DeprecationWarning' \
	  --ignore=tests/langchain/standard --ignore=tests/langchain/test_standard_table.py \
	  --ignore=tests/langchain/test_findings_streams.py --ignore=tests/llamaindex/test_rag.py \
	  --ignore=tests/llamaindex/test_document_rag.py \
	  --deselect='tests/backends/local/test_guided_decoding.py::test_any_object[2]' \
	  --deselect=tests/backends/local/test_local_backend.py::test_an_endless_reply_takes_long_so_that_the_next_tests_prove_something \
  --deselect=tests/backends/local/test_local_backend.py::test_a_deadline_ends_a_call_to_a_local_model \
	  $(addprefix tests/,core images toolcalls dialects providers adaptation structured backends captions langchain llamaindex agents contract) $(ARGS)

$(OLDEST)/.installed: pyproject.toml constraints-oldest.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' || { echo "So old libraries need Python 3.11 or 3.12: make test-oldest PYTHON=python3.11"; exit 1; }
	$(PYTHON) -m venv --clear $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet --disable-pip-version-check -r constraints-oldest.txt -e ".[all,aiohttp]"
	@touch $@

mutate: $(STAMP) ## mutation testing of a sample; AREA="toolcalls retry", NUMBER=0 for all mutants, SEED=1 for others
	@$(BIN)/python -m tests.mutation $(AREA) --number $(or $(NUMBER),40) --seed $(or $(SEED),0)

bench: $(STAMP) ## what it costs, beside raw httpx and the smallest possible class
	@$(BIN)/python benchmarks/overhead.py
	@$(BIN)/python -m benchmarks.telemetry
	@$(BIN)/python benchmarks/concurrency.py
	@$(BIN)/python benchmarks/images.py
	@$(BIN)/python benchmarks/toolcalls.py
	@$(BIN)/python benchmarks/local.py
	@$(BIN)/python -m benchmarks.serve
	@$(BIN)/python benchmarks/pixels.py
	@$(BIN)/python -m benchmarks.rag

tables: $(STAMP) ## write the tables of README and docs/providers.md anew; ALL=--all also those made by running tests
	$(BIN)/python -m tests.docs.tables $(ALL)

docs: $(STAMP) ## the documentation, into build/docs; a broken link or an unreadable docstring fails it
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -W error -m mkdocs build --strict --quiet
	@echo "build/docs/index.html"

train: $(STAMP) ## the tiny model's weights anew, into build/tiny: a quarter of an hour on two cores
	$(BIN)/python -m training.train build/tiny

evaluate: $(STAMP) ## what the tiny model can; MODEL=build/tiny for weights of your own
	@$(BIN)/python -m training.evaluate --model $(or $(MODEL),tiny)

notebooks: $(STAMP) ## run the notebooks anew, and keep what they put out
	$(BIN)/python -m tests.notebooks.running $(ARGS)

record: $(STAMP) ## record the cassettes anew with your own key: make record PROVIDER=deepinfra
	$(BIN)/python -m pytest tests/test_cassettes.py --record-mode=rewrite -k "chat_llama_vision_delivers and [$(PROVIDER)/"
	$(BIN)/python -m pytest tests/test_cassettes.py tests/test_cassette_files.py -k "[$(PROVIDER)/"
