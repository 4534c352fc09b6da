# Two commands are all a fresh machine needs: `make demo` and `make test`. Each target makes the environment it needs.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed

.PHONY: demo test test-slow lint types bench wheel clean help

help:
	@echo "make demo       set up, then videos -> shards -> trained network -> accuracy, on synthetic videos (3 minutes)"
	@echo "make test       set up, then all quick tests (8 minutes on 2 cores)"
	@echo "make test-slow  the long ones: hundreds of kills, large sweeps"
	@echo "make lint       ruff, pydoclint"
	@echo "make types      mypy"
	@echo "make bench      the quick benchmarks; docs/benchmarks.md says which command made which table"
	@echo "make wheel      build the wheel, install it into a clean environment, run it there"
	@echo "make clean      remove what these targets made"

# These three decide what is installed; sources are used in place.
$(READY): setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: $(READY)
	$(BIN)/i2st demo

test: $(READY)
	$(BIN)/python -m pytest -m "not slow"

test-slow: $(READY)
	$(BIN)/python -m pytest -m slow --timeout 3600

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pydoclint --quiet cli.py pipeline i2st_model data_manifests

types: $(READY)
	$(BIN)/mypy

bench: $(READY)
	$(BIN)/python -m benchmarks.decoders
	$(BIN)/python -m benchmarks.shard_reads
	$(BIN)/python -m benchmarks.episodes
	$(BIN)/python -m benchmarks.segmenter
	$(BIN)/python -m benchmarks.extraction
	$(BIN)/python -m benchmarks.extraction_costs
	$(BIN)/python -m benchmarks.heads
	$(BIN)/python -m benchmarks.training
	$(BIN)/python -m benchmarks.motion
	$(BIN)/python -m benchmarks.false_positives

wheel: $(READY)
	rm -rf build dist
	$(BIN)/python -m build --wheel --outdir dist .
	rm -rf $(VENV)-wheel
	$(PYTHON) -m venv $(VENV)-wheel
	$(VENV)-wheel/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt dist/*.whl
	cd $(VENV)-wheel && bin/i2st --version && bin/i2st demo --smallest --out demo

clean:
	rm -rf $(VENV) $(VENV)-wheel build dist demo *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
