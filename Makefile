# Everything runs in a virtual environment of its own, .venv; the first target that needs it makes it.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: bench-small tables quickstart test test-families test-faults test-latest test-wheel notebooks dist release-notes docs quality style clean

$(VENV)/.examples: setup.cfg constraints.txt
	@echo "Installing into $(VENV) (a few minutes the first time) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) -e ".[examples]"
	@touch $@

$(VENV)/.dev: $(VENV)/.examples
	@$(PIP) -e ".[examples,test,dev]"
	@touch $@

$(VENV)/.docs: setup.cfg constraints.txt
	@echo "Installing into $(VENV) (a few minutes the first time) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) -e ".[docs]"
	@touch $@

## Fine-tune a pretrained encoder on bundled texts with a planted leak, with Trainer and with ChallengerTrainer, and compare.
quickstart: $(VENV)/.examples
	@$(BIN)/python examples/leaky_data/run_leaky_data.py --output_dir outputs/quickstart

# Two processes of one thread each: a test file stays in one of them, since files share trained models.
test: $(VENV)/.dev
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not families and not faults and not wheel" -n 2 --dist loadfile $(PYTEST_ARGS)

## The tests with the newest transformers that setup.cfg allows, in a virtual environment of its own. Meant to run weekly.
LATEST := .venv-latest
test-latest:
	@test -d $(LATEST) || $(PYTHON) -m venv $(LATEST)
	@grep -v '^transformers==' constraints.txt > $(LATEST)/constraints.txt
	@$(LATEST)/bin/python -m pip install --quiet --disable-pip-version-check --upgrade -c $(LATEST)/constraints.txt -e ".[examples,test]"
	@$(LATEST)/bin/python -m pip install --quiet --disable-pip-version-check --upgrade -c $(LATEST)/constraints.txt "transformers<6"
	@$(LATEST)/bin/python -c "import transformers; print('transformers', transformers.__version__)"
	@OMP_NUM_THREADS=1 $(LATEST)/bin/python -m pytest -m "not families and not faults and not wheel" -n 2 --dist loadfile $(PYTEST_ARGS)

## LRP on every classifier family of transformers; writes the table in docs/.
test-families: $(VENV)/.dev
	@$(BIN)/python -m pytest -m families $(PYTEST_ARGS)

## Kills, full disks, thousands of random bad batches.
test-faults: $(VENV)/.dev
	@$(BIN)/python -m pytest -m faults $(PYTEST_ARGS)

## The wheel and the source distribution, in dist/, as they would be uploaded.
dist: $(VENV)/.dev
	@rm -rf dist
	@$(BIN)/python -m build --outdir dist . > /dev/null
	@$(BIN)/twine check --strict dist/*

## What CHANGELOG.md says of this version, for the release's page.
release-notes: $(VENV)/.dev
	@$(BIN)/python docs/release_notes.py

## Install the wheel into a fresh environment (minutes) and run the quick start's Python there.
test-wheel: dist
	@$(BIN)/python -m pytest -m wheel $(PYTEST_ARGS)

## Run the notebooks whole and keep their outputs, which GitHub shows.
notebooks: $(VENV)/.dev
	@$(BIN)/python examples/notebooks/run_notebooks.py

## The documentation as a site in site/; warnings (a broken link, an unknown page) are errors. Needs no network to build.
# Not --quiet: mkdocs then overlooks its own warnings.
docs: $(VENV)/.docs
	@$(BIN)/python docs/options_table.py
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "Open site/index.html. With search: python -m http.server -d site, then http://localhost:8000"

## A part of the benchmark, at most 40 minutes on two cores; DATA: the folder of the sets. Goes on where it stopped.
DATA ?= ../shared/data
bench-small: $(VENV)/.dev
	@cd benchmarks && OMP_NUM_THREADS=1 ../$(BIN)/python run.py experiments/cues_texts.json --data_dir $(abspath $(DATA)) --jobs 2 --minutes 38

## Write every quoted table from benchmarks/results.
tables: $(VENV)/.dev
	@$(BIN)/python benchmarks/tables.py

quality: $(VENV)/.dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

style: $(VENV)/.dev
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

clean:
	rm -rf $(VENV) $(LATEST) outputs site dist build .pytest_cache .mypy_cache .ruff_cache *.egg-info
