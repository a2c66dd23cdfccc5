# dtjob: everything a person runs. Each target sets up what it needs; nothing has to be installed first
# but Python >= 3.11 and make.

SHELL := /bin/bash
.DEFAULT_GOAL := help

# Tools and package caches live outside the checkout and are shared by all checkouts of a user.
CACHE := $(or $(DTJOB_CACHE),$(if $(XDG_CACHE_HOME),$(XDG_CACHE_HOME)/dtjob,$(HOME)/.cache/dtjob))
UV_VERSION := 0.13.9
UV_FOLDER := $(CACHE)/uv-$(UV_VERSION)
UV := $(UV_FOLDER)/bin/uv
PYTHON := .venv/bin/python
# Trust what the machine trusts: companies put their own certificates there.
export UV_SYSTEM_CERTS := 1
export MYPY_CACHE_DIR := $(CACHE)/mypy
# Every program that a test starts imports dtjob: compiled once, not each time.
unexport PYTHONDONTWRITEBYTECODE

LOCK := $(UV) pip compile pyproject.toml --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header
INSTALLED := .venv/.installed
TOOLS := PYTHONPATH=tools $(PYTHON)
DEMO ?= auto

.PHONY: help
help:  ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

# Two checkouts may do this at once: each in a folder of its own, and the first that is done counts.
$(UV):
	@echo "dtjob: installing uv $(UV_VERSION) into $(CACHE)"
	@command -v python3 >/dev/null || { echo "dtjob: python3 (>= 3.11) is missing: install it and run make again"; exit 1; }
	@mkdir -p $(CACHE) && new=$$(mktemp -d $(CACHE)/uv-$(UV_VERSION).XXXXXX) && trap 'rm -rf "$$new"' EXIT && \
	{ python3 -m venv "$$new" || { echo "dtjob: python3 -m venv failed: install your system's python3-venv package"; exit 1; }; } && \
	"$$new/bin/python" -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION) && \
	{ mv -T "$$new" $(UV_FOLDER) 2>/dev/null || test -x $(UV) || { echo "dtjob: $(UV_FOLDER) lacks uv: remove it and run make again"; exit 1; }; }

# torch alone is 5 GB installed: uv downloads it once per machine and links it into each checkout.
$(INSTALLED): $(UV) pyproject.toml locks/dev.txt
	@echo "dtjob: setting up .venv from locks/dev.txt (about a minute the first time on a machine, seconds after)"
	@start=$$(date +%s); \
	test -x $(PYTHON) || $(UV) venv --quiet --python '>=3.11' .venv && \
	$(UV) pip sync --quiet --require-hashes --compile-bytecode --python $(PYTHON) locks/dev.txt && \
	$(UV) pip install --quiet --no-deps --no-build-isolation --python $(PYTHON) --editable . && \
	touch $(INSTALLED) && echo "dtjob: environment ready after $$(( $$(date +%s) - start )) s"

.PHONY: setup
setup: $(INSTALLED)  ## Install uv and the locked environment into .venv

.PHONY: demo
demo: $(INSTALLED)  ## Train the digits job privately: on a cluster, or with DEMO=local (or none to be had) as local processes
	@$(TOOLS) -m demo --where $(DEMO)

.PHONY: demo-down
demo-down: cluster-down  ## Remove the demo's cluster

.PHONY: cluster-up cluster-down cluster-status cluster-image
cluster-up: $(INSTALLED)  ## Start a real cluster here (existing, kind, or real binaries)
	@$(TOOLS) -m localcluster up
cluster-down: $(INSTALLED)  ## Remove it, or whatever a crash left of it
	@$(TOOLS) -m localcluster down
cluster-status: $(INSTALLED)  ## Say what runs and how to reach it
	@$(TOOLS) -m localcluster status
cluster-image: $(INSTALLED)  ## Build the Dockerfile in FROM=folder, or FROM=. NAME=operator, and give it to the cluster as NAME=name
	@$(TOOLS) -m localcluster image "$(FROM)" "$(NAME)"

.PHONY: check
check: $(INSTALLED)  ## Lint, types and fast tests (under 60 s)
	@bash tools/check.sh

.PHONY: test
test: check  ## Every tier that this machine can run; says which it can't and why
	@bash tools/test.sh

.PHONY: coverage
coverage: $(INSTALLED)  ## The fast tests once more, and the lines that they meet, by package and wing
	@$(TOOLS) -m coverage run -m pytest -q --tier=check && $(TOOLS) -m testing.covered

.PHONY: nightly
nightly: $(INSTALLED)  ## The long tests, or SHARD=2/3 of them; goes on where it was interrupted
	@$(TOOLS) -m testing.nightly $(or $(SHARD),1/1)

.PHONY: rbac
rbac: $(INSTALLED)  ## All tests of a cluster, and which rights of the operator they used; for a night
	@$(TOOLS) -m testing.rights

.PHONY: attack
attack: $(INSTALLED)  ## Attack the real step of many models, sound and broken; what is read goes to docs/design/attacks.md
	@$(PYTHON) -m tests.support.attack

.PHONY: mutations
mutations: $(INSTALLED)  ## Break the rules one by one, or SHARD=2/3 of them, see tests fail, and what tests of mechanism and ledger cover
	@$(TOOLS) -m mutations --shard $(or $(SHARD),1/1); told=$$?; \
	$(TOOLS) -m coverage run -m pytest -q --tier=check tests/trainer/mechanism tests/trainer/ledger tests/flows/step tests/flows/ledger && \
	$(TOOLS) -m testing.covered dtjob_trainer/mechanism dtjob_trainer/ledger && exit $$told

.PHONY: lock
lock: $(UV)  ## Resolve the dependencies anew into locks/
	@$(LOCK) --upgrade --extra dev -o locks/dev.txt
	@for image in trainer operator worker; do $(LOCK) --no-annotate --extra $$image --constraint locks/dev.txt -o locks/$$image.txt; done

.PHONY: generate
generate: $(INSTALLED)  ## Write the CRDs from the models
	@$(PYTHON) -m dtjob_api.schema.crd

.PHONY: clean
# Not dtjob-runs: the ledgers in it are the only record of what was spent.
clean:  ## Remove .venv and the caches of the tests; runs and their ledgers stay
	@rm -rf .venv .pytest_cache .ruff_cache .hypothesis .coverage
