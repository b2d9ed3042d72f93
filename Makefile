# Two commands do everything on a fresh machine: `make demo` and `make test`.
# The first of these that runs; name another with `make PYTHON=…`.
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do $$p -c '' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
DEMO ?= demo

.PHONY: demo test check format clean browser

# Installed once; again when pyproject.toml changes.
$(VENV)/installed: pyproject.toml
	@test -n "$(PYTHON)" || { echo "no Python found; install Python 3.11, 3.12 or 3.13"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[timm]'
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

# From the simulated survey to a verdict, offline. Sizes are chosen for minutes on two CPU cores;
# they show the road, not what a generator can reach (docs/results has that).
demo: $(VENV)/installed
	$(BIN)/galaxy-set simulate $(DEMO)/survey.h5 --count 1500 --overwrite
	$(BIN)/galaxy-set info $(DEMO)/survey.h5
	$(BIN)/gan-train --class 0 --data $(DEMO)/survey.h5 --width 0.25 --steps 300 --batch-size 32 --judge none --out $(DEMO)/generator --overwrite
	$(BIN)/gan-generate $(DEMO)/generator --class 0 --count 100 --out $(DEMO)/generated.h5 --overwrite
	$(BIN)/classify-train --data $(DEMO)/survey.h5 --model small --balance sampling --steps 200 --out $(DEMO)/classifier --overwrite
	$(BIN)/fid-score '$(DEMO)/survey.h5#class=0#split=train' $(DEMO)/generated.h5 --features classifier:$(DEMO)/classifier --all
	$(BIN)/augment-and-eval --data $(DEMO)/survey.h5 --class 0 --gan $(DEMO)/generator --repeats 3 --steps 60 --out $(DEMO)/results --overwrite
	@echo "the report: $(abspath $(DEMO))/results/report.html"

check: $(VENV)/installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# Chromium for the tests of the web page, from the system's packages where that is possible;
# where it is not, these tests skip with a reason.
browser:
	@command -v chromium chromium-browser google-chrome google-chrome-stable >/dev/null \
	|| { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null \
	&& timeout 240 sh -c 'apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends chromium' >/dev/null 2>&1; } \
	|| echo "no Chromium: the browser tests will skip"

# A process per core with one thread each: networks this small are slower on two threads.
test: check browser
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses auto --dist loadfile

format: $(VENV)/installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) $(DEMO) .pytest_cache .mypy_cache .ruff_cache .hypothesis
