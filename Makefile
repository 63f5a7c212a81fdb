# Needs Python 3.11 or newer with its venv module, and a package index; everything else is installed into .venv.
# Another Python: make PYTHON=python3.12 check

CANDIDATES = python3 python3.11 python3.12 python3.13 python3.14 python
PYTHON ?= $(firstword $(foreach name,$(CANDIDATES),$(shell $(name) -c \
  'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $(name))))
VENV := .venv
BIN := $(VENV)/bin
NEEDS := pyproject.toml constraints.txt tools/install.py

.PHONY: help demo check fix faults help-file accuracy grid bench clean
.DEFAULT_GOAL := help

help:  ## Show this list.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.installed-train  ## Install what training needs and fine-tune a tiny model, start to end.
	@$(BIN)/ftwiz demo --no-tui
	@echo "the same on one screen: $(BIN)/ftwiz demo        your own job: $(BIN)/ftwiz"

check: $(VENV)/.installed-dev  ## Everything CI runs: format, lint, walls, types, tests. No GPU needed.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/mypy
	$(BIN)/pytest --numprocesses auto --maxprocesses 4 --dist loadfile $(PYTEST)

fix: $(VENV)/.installed-dev  ## Format, and apply safe fixes.
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

REPEATS ?= 5
faults: $(VENV)/.installed-train $(VENV)/.installed-dev  ## Try every fault on real runs of three engines: REPEATS=5; writes docs/reliability.md.
	$(BIN)/python tests/faults/campaign.py --repeats $(REPEATS) --page

help-file: $(VENV)/.installed-train  ## Write what `ftwiz --help` prints, after a command changed.
	$(BIN)/python -c 'from ftwiz.cli.group import help_text; print(help_text(), end="")' > ftwiz/cli/help.txt.new
	mv ftwiz/cli/help.txt.new ftwiz/cli/help.txt

ROWS ?= ../shared/corpus/memory/measured.json
accuracy: $(VENV)/.installed-dev  ## Compare the memory estimate with measurements: ROWS=file.json; writes docs/accuracy.md.
	$(BIN)/python docs/make_accuracy.py $(ROWS)

grid: $(VENV)/.installed-train  ## Compare the fast memory estimate with the exact one on 240 configurations; writes docs/fast-against-exact.md.
	nice $(BIN)/python tools/memory_grid.py

bench: $(VENV)/.installed-dev  ## Measure: commands against a bare Python, planning, hardware readings, bytes over the line, the worker against the plain script.
	$(BIN)/python bench/startup.py
	$(BIN)/python bench/plan.py
	$(BIN)/python bench/hardware.py
	$(BIN)/python bench/screen.py
	$(BIN)/python bench/worker.py

clean:  ## Remove caches and build outputs; keeps .venv and runs.
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache snapshot_report.html
	find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +

# One rule for both stamps: "dev" leaves the stamp of "train" too, because it holds that set.
$(VENV)/.installed-%: $(NEEDS)
ifeq ($(strip $(PYTHON)),)
	@echo "make: no Python 3.11 or newer found: install one, or say where it is: make PYTHON=/path/to/python3.11" >&2; exit 1
else
	@command -v $(PYTHON) >/dev/null || { echo "make: $(PYTHON): not found" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "make: $(PYTHON) is older than Python 3.11: make PYTHON=python3.11" >&2; exit 1; }
	@$(PYTHON) tools/install.py $* --venv $(VENV)
endif
