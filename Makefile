# Everything happens in .venv; pip reads constraints.txt, which pins what CI tests with.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --constraint constraints.txt

.PHONY: demo test integration consumers fuzz lint docs clean always

demo: $(VENV)/installed
	$(BIN)/tessera simulate demo/catalog
	$(BIN)/tessera embed --aoi demo/catalog/aoi.geojson --year 2023 --catalog demo/catalog/items.json --model demo --out demo/out
	$(BIN)/tessera info demo/out
	@echo
	@echo "tessera lies in $(BIN)/tessera; 'source $(BIN)/activate' lets you call it by its name. Try next:"
	@echo "  $(BIN)/tessera preview demo/out                                 # a page to look at it"
	@echo "  $(BIN)/tessera plan --aoi examples/field.geojson --year 2023    # real imagery: what it would read and cost"
	@echo "  $(BIN)/tessera embed --aoi examples/field.geojson --year 2023"

test: $(VENV)/tested
	$(BIN)/python -m pytest -m "not integration" --numprocesses 2 --dist worksteal

# With a real STAC API, PostgreSQL, nginx and Slurm; setup.sh installs them on Debian and Ubuntu.
integration: $(VENV)/tested
	tests/integration/setup.sh
	TESSERA_INTEGRATION=required $(BIN)/python -m pytest tests/integration --numprocesses 2 --dist loadfile

# The programs that people open our files with, each in an environment of its own; see tests/consumers/README.md.
# `make consumers WHICH=--quick` takes those of CI, which must be there.
consumers: $(VENV)/tested
	$(BIN)/python tests/consumers/setup.py $(WHICH)
	TESSERA_CONSUMERS=$(if $(findstring --quick,$(WHICH)),required) $(BIN)/python -m pytest tests/consumers -rs

# Damaged and hostile files, documents and answers; a short form is part of `make test`.
fuzz: $(VENV)/tested
	$(BIN)/python -m tests.fuzz --seconds 1200 --seed $$(date +%j)

lint: $(VENV)/tested
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The site, in site/; warnings are errors.
docs: $(VENV)/documented
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# Made anew where it was made with another interpreter than PYTHON, or its own is gone: `always` has it looked at each time.
NAME := print("%d.%d in %s" % (sys.version_info[:2] + (sys.base_prefix,)))
OLD := PYTHON=$(PYTHON) is no Python 3.11 or newer. Install one, and name it: make PYTHON=python3.12
$(VENV)/bin/python: always
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { echo '$(OLD)' >&2; exit 1; }
	@due=$$($(PYTHON) -c 'import sys; $(NAME)'); made=$$($@ -c 'import pip, sys; $(NAME)' 2>/dev/null); \
	test "$$made" = "$$due" || { rm -rf $(VENV) && $(PYTHON) -m venv $(VENV); }

$(VENV)/installed: $(VENV)/bin/python pyproject.toml constraints.txt
	$(INSTALL) --editable .
	touch $@

$(VENV)/tested: $(VENV)/installed
	$(INSTALL) --editable ".[dev]"
	touch $@

$(VENV)/documented: $(VENV)/installed
	$(INSTALL) --editable ".[docs]"
	touch $@

clean:
	rm -rf $(VENV) .venv-servers .venv-consumers demo site
