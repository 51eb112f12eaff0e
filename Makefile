# Every task of the project; `make` alone lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CODEGEN := .venv-codegen
PROTOS := $(sort $(wildcard protos/tocsin/v1/*.proto))
STUBS := clients/python
POLYGLOT_GO := tests/polyglot/go
PROTOC_GEN_GO := v1.36.11
PROTOC_GEN_GO_GRPC := v1.6.0
comma := ,
GO_PACKAGE := Mtocsin/v1/annotations.proto=tocsin.test/polyglot/tocsinv1$(comma)Mtocsin/v1/event_log.proto=tocsin.test/polyglot/tocsinv1
PIP := -m pip --disable-pip-version-check --quiet

.DEFAULT_GOAL := help
.PHONY: help setup tools shells polyglot polyglot-node polyglot-go generate verify lint format types test faults faults-short demo examples run bench bench-full build ci clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.installed ## make the virtual environment and install both distributions in it

$(VENV)/.installed: pyproject.toml clients/python/pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python >= 3.11 is needed, this is " + sys.version)'
	@echo "Installing into $(VENV) (about a minute, once)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python $(PIP) install -c constraints.txt -e 'clients/python[cli]' -e '.[dev]'
	@touch $@

$(CODEGEN)/.installed: constraints-codegen.txt
	@$(PYTHON) -m venv $(CODEGEN)
	@$(CODEGEN)/bin/python $(PIP) install -r constraints-codegen.txt
	@touch $@

tools: shells ## install grpcurl into .tools/, where Go is, and the shells of the completion (tests use them)
	@if command -v go >/dev/null; then \
	  test -x .tools/grpcurl || GOBIN="$(CURDIR)/.tools" GOFLAGS=-mod=mod go install github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.3; \
	else echo "grpcurl: Go is not there, tests fall back to buf curl"; fi

# The shells that the command line completes in. Where they cannot be had their tests say that they were skipped.
shells:
	@missing=$$(for shell in zsh fish; do command -v $$shell >/dev/null || echo $$shell; done); \
	if [ -z "$$missing" ]; then :; \
	elif command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
	  echo "Installing" $$missing; \
	  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $$missing; } >/dev/null 2>&1 \
	    || echo "shells: apt-get could not install" $$missing", their completion is not tested"; \
	else echo "shells:" $$missing "not there, their completion is not tested"; fi

# What the clients in Node and Go of tests/polyglot need. A language that is not there is left out, and its
# test says that it was skipped.
polyglot: polyglot-node polyglot-go ## install what the Node and Go clients of the tests need

polyglot-node:
	@if command -v npm >/dev/null; then \
	  test tests/polyglot/node/node_modules/.package-lock.json -nt tests/polyglot/node/package-lock.json \
	    || npm ci --prefix tests/polyglot/node --ignore-scripts --no-audit --no-fund --loglevel=error; \
	else echo "polyglot: npm is not there, the Node client is left out"; fi

polyglot-go: $(CODEGEN)/.installed
	@if command -v go >/dev/null; then \
	  GOBIN="$(CURDIR)/.tools" go install google.golang.org/protobuf/cmd/protoc-gen-go@$(PROTOC_GEN_GO) \
	  && GOBIN="$(CURDIR)/.tools" go install google.golang.org/grpc/cmd/protoc-gen-go-grpc@$(PROTOC_GEN_GO_GRPC) \
	  && mkdir -p $(POLYGLOT_GO)/tocsinv1 \
	  && PATH="$(CURDIR)/.tools:$$PATH" $(CODEGEN)/bin/python -m grpc_tools.protoc -Iprotos \
	      --go_out=$(POLYGLOT_GO) --go_opt=module=tocsin.test/polyglot,$(GO_PACKAGE) \
	      --go-grpc_out=$(POLYGLOT_GO) --go-grpc_opt=module=tocsin.test/polyglot,$(GO_PACKAGE) \
	      protos/tocsin/v1/annotations.proto protos/tocsin/v1/event_log.proto \
	  && cd $(POLYGLOT_GO) && go build -o "$(CURDIR)/.tools/polyglot" . ; \
	else echo "polyglot: Go is not there, the Go client is left out"; fi

generate: $(CODEGEN)/.installed ## write the stubs of protos/ anew
	@rm -f $(STUBS)/tocsin/v1/*_pb2*
	@PATH="$(CURDIR)/$(CODEGEN)/bin:$$PATH" $(CODEGEN)/bin/python -m grpc_tools.protoc -Iprotos \
	    --python_out=$(STUBS) --grpc_python_out=$(STUBS) --mypy_out=quiet:$(STUBS) --mypy_grpc_out=quiet:$(STUBS) $(PROTOS)

verify: setup generate ## the stubs are fresh, the protos are clean and break nobody
	@git diff --exit-code --stat -- $(STUBS)/tocsin/v1 || { echo "the stubs are stale: commit what 'make generate' wrote"; exit 1; }
	@test -z "$$(git ls-files --others --exclude-standard -- $(STUBS)/tocsin/v1)" || { echo "stubs are not committed"; exit 1; }
	@$(BIN)/buf lint
	@$(BIN)/buf format -d --exit-code
	@tag=$$(git describe --tags --abbrev=0 2>/dev/null); \
	if [ -n "$$tag" ]; then $(BIN)/buf breaking --against ".git#tag=$$tag"; else echo "buf breaking: no release tag yet, nothing to compare with"; fi

lint: setup ## style, import rules
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports --no-cache

format: setup ## put the code into shape
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .
	@$(BIN)/buf format -w

types: setup ## mypy, strict
	@$(BIN)/mypy

test: setup ## the tests
	@$(BIN)/python -m pytest -q -rs -m "not faults"

faults: setup ## kill -9 under load, at 500 moments; 1,500 power losses (about 10 minutes)
	@$(BIN)/python -m pytest -q -m faults

faults-short: setup ## the same, fewer times
	@TOCSIN_KILL_CYCLES=15 TOCSIN_DIGEST_KILLS=4 TOCSIN_CONSUMER_KILL_CYCLES=8 TOCSIN_CRASH_CYCLES=60 TOCSIN_POWER_IMAGES=300 TOCSIN_DELIVERY_KILLS=6 TOCSIN_DELIVERIES=2000 $(BIN)/python -m pytest -q -m faults

demo: setup ## the main job, end to end, visibly
	@$(BIN)/python -m examples.demo

examples: setup ## run every example
	@$(BIN)/python -m pytest -q tests/examples

run: setup ## start the server on 127.0.0.1:50051
	@$(BIN)/tocsin-server serve --dev

bench: setup ## measure the hot paths (under 5 minutes)
	@$(BIN)/python -m bench

bench-full: setup ## the same at whole size (10 million events) and beside Redis, NATS and etcd (about 30 minutes)
	@$(BIN)/python -m bench --full

build: setup ## build both distributions into dist/
	@rm -rf dist
	@$(BIN)/python -m build --no-isolation --outdir dist clients/python
	@$(BIN)/python -m build --no-isolation --outdir dist .

ci: verify lint types tools polyglot test faults-short demo build ## all that has to hold

clean: ## remove what was made
	@rm -rf $(VENV) $(CODEGEN) .tools dist build data
