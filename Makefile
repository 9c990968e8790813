# The two commands at the top of the README are `make demo` and `make test`; nothing else is
# needed before them.

VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test lint bench clean help

help:
	@echo 'make demo    train MNIST in a container image built on the spot, without Docker or root'
	@echo 'make test    run the tests'
	@echo 'make lint    ruff and mypy'
	@echo 'make bench   the figures of the README, as ratios in one run'

# A stamp, not a folder: an interrupted set-up is begun again.
$(VENV)/.ready: pyproject.toml scripts/venv.sh
	@sh scripts/venv.sh $(VENV)
	@touch $@

demo: $(VENV)/.ready
	@$(BIN)/python examples/demo.py

# Engine tests start daemons of their own, one of each kind: tests/integration/conftest.py says which
# stay together.
# What takes more than half a minute is left to TORCHSHIP_SLOW=1, which .ci/run sets.
QUICK := $(if $(filter 1,$(TORCHSHIP_SLOW)),, and not slow)

test: $(VENV)/.ready
	$(BIN)/python -m pytest -n 2 -m 'not engine$(QUICK)'
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m 'engine$(QUICK)'

lint: $(VENV)/.ready
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench: $(VENV)/.ready
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
