SPEC ?= examples/quickstart/cluster.yaml
PORT ?= 8000

.PHONY: install serve test lint check docs bench clean

install: .venv/installed

.venv/installed: pyproject.toml heliostat/pyproject.toml constraints.txt scripts/install scripts/overrides-cpu.txt
	scripts/install

serve: install
	.venv/bin/heliostat serve $(SPEC) --port $(PORT)

test: install
	scripts/lint
	scripts/check
	scripts/test

lint check docs: install
	scripts/$@

bench: install
	.venv/bin/python benchmarks/sharing.py

clean:
	rm -rf .venv dist build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
