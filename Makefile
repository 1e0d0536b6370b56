# Each target makes .venv and installs what it needs, once. PYTHON picks the interpreter.
PYTHON ?= python3
NEWEST ?= python3.13
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: demo test test-slow test-newest test-wheel test-demo lint bench docs clean

demo: $(VENV)/runtime
	$(BIN)/python -m robust_jax.main --config configs/quickstart.py --workdir runs/quickstart

test: lint
	$(BIN)/python -m pytest -n 2 --dist worksteal

test-slow: lint $(VENV)/torch test-newest
	$(BIN)/python -m pytest -m slow

# The quick tests on another Python, with the newest packages that the requirements allow.
test-newest: $(VENV)-newest/dev
	$(VENV)-newest/bin/python -m pytest -n 2 --dist worksteal

$(VENV)-newest/dev: requirements.txt requirements-dev.txt
	test -x $(VENV)-newest/bin/python || $(NEWEST) -m venv $(VENV)-newest
	$(VENV)-newest/bin/python -m pip install --quiet --disable-pip-version-check --upgrade -r requirements-dev.txt
	$(VENV)-newest/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

# The demo page in Chromium (of the system). Gradio wants an older Pillow than constraints.txt.
test-demo: $(VENV)-demo/dev
	$(VENV)-demo/bin/python -m pytest -n 0 -m slow tests/test_demo.py

$(VENV)-demo/dev: requirements.txt requirements-dev.txt requirements-demo.txt
	test -x $(VENV)-demo/bin/python || $(PYTHON) -m venv $(VENV)-demo
	$(VENV)-demo/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt -r requirements-demo.txt playwright
	$(VENV)-demo/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

lint: $(VENV)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The quick tests of the wheel, away from this tree: robust_jax and configs are those of the wheel.
WHEEL := build/wheel
test-wheel: $(VENV)/dev
	rm -rf $(WHEEL)
	$(BIN)/python -m build --outdir $(WHEEL) .
	$(PIP) --no-deps --target $(WHEEL)/tree $(WHEEL)/*.whl
	cp -r tests benchmarks colabs launch docs LICENSE *.md *.cff .pre-commit-config.yaml .dockerignore Makefile pyproject.toml constraints.txt requirements*.txt $(WHEEL)/tree
	find $(WHEEL)/tree -name __pycache__ -prune -exec rm -rf {} +
	cd $(WHEEL)/tree && PYTHONPATH=$$PWD $(CURDIR)/$(BIN)/python -m pytest -n 2 --dist worksteal

# The tables of docs/*.md and the API reference.
docs: $(VENV)/docs
	$(BIN)/python docs/make_tables.py
	$(BIN)/python docs/make_api.py docs/api

bench: $(VENV)/torch
	for file in $(filter-out %/measuring.py %/students.py %/gpu.py %/gpu_programs.py %/peer_torch_model.py,$(wildcard benchmarks/*.py)); do $(BIN)/python $$file || exit 1; done

$(VENV)/runtime: requirements.txt constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) -r requirements.txt -c constraints.txt
	$(PIP) --no-deps --editable .
	touch $@

$(VENV)/dev: $(VENV)/runtime requirements-dev.txt
	$(PIP) -r requirements-dev.txt -c constraints.txt
	touch $@

$(VENV)/docs: $(VENV)/runtime requirements-docs.txt
	$(PIP) -r requirements-docs.txt -c constraints.txt
	touch $@

# What tests compare with where it is installed, and what runs notebooks; not needed for `make test`.
$(VENV)/torch: $(VENV)/dev requirements-torch.txt requirements-colabs.txt requirements-nodeps.txt requirements-pretrained.txt
	$(PIP) -r requirements-torch.txt -r requirements-colabs.txt -c constraints.txt
	$(PIP) --no-deps -r requirements-nodeps.txt
	touch $@

clean:
	rm -rf $(VENV) $(VENV)-newest $(VENV)-demo runs build docs/api .pytest_cache .mypy_cache .ruff_cache
