# Two commands: `make demo` shows it working, `make test` proves it. PYTHON=python3.12 chooses another Python.
.PHONY: demo test
SHELL := /bin/sh

demo: .venv/installed
	.venv/bin/omni check examples/quickstart.yaml
	.venv/bin/omni launch examples/quickstart.yaml

test: .venv/installed
	./tests/browser.sh
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/pytest

.venv/installed: pyproject.toml constraints.txt install.sh
	./install.sh
	touch $@
