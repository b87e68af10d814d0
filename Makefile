# The two commands that matter: `make run` and `make test`. Everything is set up inside this folder.
SHELL := /bin/bash
.DEFAULT_GOAL := help
BIN := .venv/bin

.PHONY: help run test check format bench soak setup setup-test setup-bench clean

help: ## Show this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: setup ## Set up, load the example data into ./data, serve with a simulated feed, and print the address
	@env -u TAPEHOUSE_URL $(BIN)/tapehouse load --if-empty examples/data/us-daily.csv.gz --instruments examples/instruments.toml
	@exec env -u TAPEHOUSE_URL $(BIN)/tapehouse serve --simulate-per-s 20

test: setup-test ## Set up what the tests need, check the code, run every test
	@tools/parts.sh
	@tools/kafka.sh || echo "Kafka could not be fetched: its tests are left out"
	@$(MAKE) --no-print-directory check
	@$(BIN)/python -m pytest -n logical --maxprocesses 4 --dist worksteal

check: setup-test ## Format, lint, types, and the rules of the house
	@$(BIN)/ruff format --check --quiet . || { echo "make format puts that right"; exit 1; }
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy
	@$(BIN)/python -m pytest tests/unit/test_house.py

format: setup-test ## Format the code and mend what the linter can
	@$(BIN)/ruff check --fix --quiet .
	@$(BIN)/ruff format --quiet .

bench: setup-bench ## Measure; writes benchmarks/results and docs/benchmarks.md (NAMES="load size" for some)
	@.venv-bench/bin/python -m benchmarks $(NAMES)

soak: setup-test ## The long tests: many more Hypothesis examples, kill loops (an hour)
	@HYPOTHESIS_PROFILE=soak $(BIN)/python -m pytest -m '' --timeout=7200

setup:
	@tools/venv.sh .venv constraints.txt calendars pandas

setup-test:
	@tools/venv.sh .venv constraints.txt calendars pandas kafka redis test check

setup-bench:
	@tools/venv.sh .venv-bench constraints-bench.txt calendars bench

clean: ## Remove what the commands above made, but not ./data
	rm -rf .venv .venv-bench .kafka .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist benchmarks/.data benchmarks/.work
	find . -name __pycache__ -prune -exec rm -rf {} +
