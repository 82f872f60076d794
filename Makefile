# The commands of the README, and their parts.  Each makes or reuses .venv;
# PYTHON=/path/to/python chooses the interpreter it is made with.

.PHONY: help demo test test-slow test-afw lint docs benchmark clean another-checkout

# Programs of the environment come first, for the tests that run pipetask.
ENV := PATH="$(CURDIR)/.venv/bin:$$PATH"
# Two tests at a time of one thread each; those of a file share what they set up.
JOBS ?= 2
TEST_ENV := $(ENV) OMP_NUM_THREADS="$${OMP_NUM_THREADS:-1}"

help:
	@echo "make demo       simulate a survey, restore its coadds, compare; results in demo/"
	@echo "make test       static checks and the fast tests"
	@echo "make test-slow  the tests that take minutes"
	@echo "make test-afw   the tests of the full stack, which must be set up"
	@echo "make lint       static checks only"
	@echo "make docs       the documentation, in doc/_build/html"
	@echo "make benchmark  quality beside that of other methods, in benchmarks/quality.md; takes hours"

# An environment that is up to date may yet be linked or copied from elsewhere.
.venv/.done: pyproject.toml benchmarks/pyproject.toml $(shell .ci/make-venv --check || echo another-checkout)
	@.ci/make-venv

demo: .venv/.done
	@$(ENV) astroclearnet demo demo

test: lint
	@$(TEST_ENV) pytest -n $(JOBS) --dist loadfile

# Exit status 5 of pytest means that no test was selected.
test-slow: .venv/.done
	@$(TEST_ENV) pytest --run-slow -m slow -n $(JOBS) --dist loadfile || \
	{ status=$$?; [ $$status -eq 5 ] && echo "no slow tests"; } || exit $$status

# With the interpreter of the stack and not that of .venv.
test-afw:
	@PYTHONPATH="$(CURDIR)/python$${PYTHONPATH:+:$$PYTHONPATH}" python -m pytest --require-afw -m afw

lint: .venv/.done
	$(ENV) ruff check .
	$(ENV) ruff format --check .
	$(ENV) mypy python/lsst/astroclearnet tests benchmarks
	$(ENV) numpydoc lint --config . $$(find python benchmarks/*/scenes benchmarks/*/baselines benchmarks/*/peers benchmarks/*/truth -name '*.py' ! -name version.py)
	$(ENV) codespell

# Pages of the API are made by the build; one that is left of a class which is
# gone would be an error.
docs: .venv/.done
	@rm -rf doc/lsst.astroclearnet/api
	@$(TEST_ENV) sphinx-build -q -W --keep-going -n doc doc/_build/html
	@echo "doc/_build/html/index.html"

# Runs that were done before are not repeated, and a run that fails does not
# keep the others from the table.
QUALITY := $(ENV) OMP_NUM_THREADS=1 python -m astroclearnet_benchmarks quality

benchmark: .venv/.done
	@status=0; run() { $(QUALITY) --jobs $${JOBS:-2} "$$@" || status=1; }; \
	run; \
	run --methods ours --targets 2.5 3.5 --kinds field stars pairs --count field=2 stars=3 pairs=4; \
	run --methods ours --exposures 4 33 --kinds field stars --count field=2 stars=3; \
	run --methods ours --kinds crowded transients; \
	$(QUALITY) --only-table && exit $$status

clean:
	rm -rf demo build dist .pytest_cache .mypy_cache .ruff_cache doc/_build doc/lsst.astroclearnet/api
