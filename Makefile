# `make` alone prints the targets; each is described by its `##` comment.

PYTHON ?= python3
BIN := .venv/bin
MEMBERS := $(wildcard libs/*) $(wildcard services/*) deploy/local
INSTALLED := .venv/.installed

export UV_PYTHON_DOWNLOADS := never
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.PHONY: help install run demo up down logs scale roll check format test test-containers mutate bench lock docs clean

help: ## print the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(INSTALLED) ## install everything into .venv

$(INSTALLED): requirements/dev.txt $(addsuffix /pyproject.toml,$(MEMBERS))
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Keelson needs Python 3.11 or later; name one by PYTHON=...")'
	@echo "installing into .venv (a minute or two, once)"
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation $(addprefix -e ./,$(MEMBERS))
	@touch $@

run: $(INSTALLED) ## start PostgreSQL, the services, a scheduler and two nodes; Ctrl-C stops them
	@exec $(BIN)/python -m keelson.local run

demo: $(INSTALLED) ## a small company's platform from nothing, against a running stack
	@exec $(BIN)/python -m keelson.local demo

up: ## build the images, start everything as containers, wait until it is ready
	KEELSON_REVISION=$$(git rev-parse --short HEAD 2>/dev/null || echo unknown) docker compose up --detach --build --wait
	@deploy/compose/write_dev.sh

down: ## stop the containers; data and secrets stay in their volumes
	docker compose --profile observe down
	@rm -f "$${KEELSON_HOME:-.keelson}/dev.json"

logs: ## follow what the containers log
	docker compose logs --follow --tail 100

SCALED := $(foreach each,command projector query scheduler,$(if $($(each)),$(each)))
scale: ## run so many replicas: make scale command=2 query=3 projector=2 scheduler=2
	@[ -n "$(SCALED)" ] || { echo "say how many: make scale command=2 query=3 projector=2 scheduler=2" >&2; exit 2; }
	docker compose up --detach --wait --no-deps --no-recreate $(foreach each,$(SCALED),--scale $(each)=$($(each))) $(SCALED)

roll: ## replace replicas one by one, losing no request: make roll service=command
	@deploy/compose/roll.sh $(service)

check: $(INSTALLED) ## formatting, lint, types, import rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy libs services deploy examples tests
	$(BIN)/lint-imports

format: $(INSTALLED) ## format, and mend what can be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

test: $(INSTALLED) ## every test: unit, properties, architecture, integration, system
	$(BIN)/pytest $(ARGS)

test-containers: $(INSTALLED) ## the images and the compose stack, broken on purpose; needs a Docker engine
	$(BIN)/pytest -s tests/containers $(ARGS)

mutate: $(INSTALLED) ## take each guard out of a copy of the code, and see a test fail; ARGS="F9 F35" for some
	@PYTHONPATH=tests $(BIN)/python -m mutation $(ARGS)

bench: $(INSTALLED) ## measure, beside baselines; ARGS=--full for medians of three rounds, ARGS="--only append,http"
	@PYTHONPATH=tests $(BIN)/python -m bench $(ARGS)

lock: $(INSTALLED) ## renew the pinned versions in requirements/
	$(BIN)/uv lock --upgrade
	for each in command projector query scheduler cli agent; do \
	  $(BIN)/uv export --quiet --frozen --no-dev --no-emit-workspace --no-header --package keelson-$$each -o requirements/$$each.txt || exit 1; \
	done
	$(BIN)/uv export --quiet --frozen --only-group build --no-emit-workspace --no-header -o requirements/build.txt
	$(BIN)/uv export --quiet --frozen --no-emit-workspace --no-header -o requirements/dev.txt

docs: $(INSTALLED) ## write what is generated from the code: events, settings, JSON Schemas, the client, the dashboard
	$(BIN)/python -m keelson.local docs

clean: ## remove what was installed and built (data in .keelson stays)
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
