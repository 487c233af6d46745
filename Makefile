# Asterism: every routine of the repository. `make install` needs Python 3.11+, pip and make, nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
unexport PYTHONDONTWRITEBYTECODE
# The tests start hundreds of processes: each would compile every module that it imports anew.
PACKAGES := asterism.py orchestrator planner protocol workers devices bench

SECONDS ?= 60
N ?= 10000
.PHONY: install dev demo test test-integration test-rest check simulate mutants fuzz peers format docs lock proto clean

install: $(VENV)/installed            ## .venv with `asterism` in it (runtime lock only)

$(VENV)/installed: requirements/runtime.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/runtime.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

dev: $(VENV)/dev                      ## what the tests and the linters need, on top

$(VENV)/dev: $(VENV)/installed requirements/dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.lock
	@touch $@

demo: install                         ## the tour: one request, three workers, one real failure
	@$(BIN)/asterism demo

test: dev                             ## every test, offline, in two halves at once: some 8 minutes on 2 cores
	@$(MAKE) --no-print-directory --jobs=2 test-integration test-rest

test-integration: dev                 # mostly waits for processes
	$(BIN)/python -m pytest tests/integration

test-rest: dev                        # mostly computes; shown in one piece, so that the two don't mix
	@told=$$(mktemp); $(BIN)/python -m pytest --ignore tests/integration > $$told 2>&1; \
	status=$$?; cat $$told; rm $$told; exit $$status

check: dev                            ## format, lint, types, import contracts, generated code, docs, tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	@$(MAKE) --no-print-directory test

simulate: dev                         ## N=10000 drawn schedules of faults on a virtual clock, all cores
	@$(BIN)/asterism bench simulate $(N)

mutants: dev                          ## the simulation notices every rule that is taken out
	@$(BIN)/asterism bench mutants

fuzz: dev                             ## every decoder, damaged input, SECONDS=60; what breaks one stays in its corpus
	$(BIN)/python -m tests.fuzz --seconds $(SECONDS) --seed $$(date +%s) --keep

PEERS ?= $(basename $(notdir $(wildcard bench/peers/requirements/*.txt)))
peers: $(PEERS:%=.peers/%/installed)  ## the runtimes that `bench overhead` compares with, each in an environment of its own

.peers/%/installed: bench/peers/requirements/%.txt
	$(PYTHON) -m venv .peers/$*
	.peers/$*/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@

format: dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: dev                             ## refresh the generated parts of docs/reference (the tests assert it)
	$(BIN)/python docs/generate.py

lock:                                 ## refresh the lock files (needs uv on the PATH); they name no registry
	uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --python-version 3.11 \
	  --group build pyproject.toml -o requirements/runtime.lock
	uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --python-version 3.11 \
	  --group dev -c requirements/runtime.lock pyproject.toml -o requirements/dev.lock

proto:                                ## regenerate protocol/_pb from proto/ in a throw-away environment
	rm -rf build/proto && $(PYTHON) -m venv build/proto
	build/proto/bin/python -m pip install --quiet --disable-pip-version-check grpcio-tools==1.76.0
	build/proto/bin/python -m grpc_tools.protoc -Iproto --python_out=protocol/_pb proto/asterism_v1.proto
	@for file in proto/asterism_v1.proto protocol/_pb/asterism_v1_pb2.py; do \
	  $(PYTHON) -c "import hashlib, sys; print(hashlib.sha256(open(sys.argv[1], 'rb').read()).hexdigest())" $$file; \
	done > protocol/_pb/stamp.txt
	rm -rf build/proto

clean:
	rm -rf $(VENV) .peers build dist out .mypy_cache .ruff_cache .hypothesis .import_linter_cache
