# Two commands: `make demo` shows it working, `make test` proves it. PYTHON=python3.12 chooses another Python.
# `make test-all` takes every pair of features of every pipeline too, and every moment of a fault.
.PHONY: demo test test-all site
SHELL := /bin/sh
# Container images often set it; each process would then compile torch and diffusers again, 11 s of CPU.
unexport PYTHONDONTWRITEBYTECODE

demo: .venv/installed
	.venv/bin/omni check examples/quickstart.yaml
	.venv/bin/omni launch examples/quickstart.yaml

test: .venv/installed
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports
	.venv/bin/pytest -n 2

test-all: .venv/installed
	OMNI_EVERY_PAIR=1 OMNI_EVERY_COMMAND=1 OMNI_KILLS=20 .venv/bin/pytest -m "" -o timeout_func_only=true

# README, rules, models, engines, matrix and estimates as one static site with search, in site/.
site: .venv/installed
	.venv/bin/python docs/build_site.py

.venv/installed: pyproject.toml constraints.txt install.sh
	./install.sh
	touch $@
