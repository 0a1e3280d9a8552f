# Two commands for a newcomer: `make demo` and `make test`. Every one sets up a virtual environment first.
# `make test` installs the newest versions of what edgemeta needs; `make test-versions` tests with the oldest ones.
# While one writes: `make format`, `make lint` and `make fast` (CONTRIBUTING.md).
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
OLDEST_PYTHON ?= python3.11
OLDEST := .venv-oldest
FLOWER := .venv-flower

# Tests that wait (for processes, sockets, deadlines) beside those that compute, as there are two cores for them.
define tests
@echo "the slow tests; what the others, beside them, say comes after it"; \
$(1)/pytest -m "not slow" > $(1)/fast.log 2>&1 & fast=$$!; \
$(1)/pytest -m slow; slow=$$?; wait $$fast; fast=$$?; cat $(1)/fast.log; exit $$((slow | fast))
endef

.PHONY: world demo test fast lint format test-versions test-flower soak clean

demo: $(VENV)/installed
	$(BIN)/edgemeta demo

test: lint
	$(call tests,$(BIN))

fast: $(VENV)/installed-dev
	$(BIN)/pytest -m "not slow"

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# A simulated gateway with honest and hostile devices; make world SEED=7 shows again what seed 7 found.
world: $(VENV)/installed-dev
	PYTHONPATH=tests:. $(BIN)/python tests/world.py $(SEED)

# The long forms of what `make test` takes a sample of: docs/reliability.md says what each is. An hour or more.
soak: $(VENV)/installed-dev
	EDGEMETA_FAULTS=all $(BIN)/pytest tests/test_faults.py
	EDGEMETA_CUTS=all $(BIN)/pytest tests/test_power_cuts.py
	EDGEMETA_KILLS=300 $(BIN)/pytest tests/test_kills.py
	EDGEMETA_FUZZ=100000 $(BIN)/pytest tests/test_fuzz.py
	EDGEMETA_FLOWER=all $(MAKE) test-flower
	PYTHONPATH=tests:. EDGEMETA_WORLD_S=2100 $(BIN)/python tests/world.py

test-versions: $(OLDEST)/installed
	$(OLDEST)/bin/pip list 2>/dev/null | grep -E '^(numpy|Pillow|click) '
	$(call tests,$(OLDEST)/bin)

# What takes Flower, which is 300 MB.
test-flower: $(FLOWER)/installed
	$(FLOWER)/bin/pytest tests/flower

$(VENV)/installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "edgemeta needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable .
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@

# The lower bounds in pyproject.toml are what is promised, so they are what is installed.
$(OLDEST)/installed: pyproject.toml
	$(OLDEST_PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/pip install --quiet --editable '.[test]' \
	    $$($(OLDEST_PYTHON) -c 'import tomllib; print(*(need.replace(">=", "==") for need in tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"]))')
	touch $@

$(FLOWER)/installed: pyproject.toml
	$(PYTHON) -m venv $(FLOWER)
	$(FLOWER)/bin/pip install --quiet --editable '.[flower,test]'
	touch $@

clean:
	rm -rf $(VENV) $(OLDEST) $(FLOWER) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
