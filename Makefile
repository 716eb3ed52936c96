# `make app` and `make test` are all that is needed; both install what they need into VENV, once.
PYTHON ?= python3
VENV   ?= .venv
PORT   ?= $(or $(GRADIO_SERVER_PORT),7860)
ARGS   ?=
JOBS   ?= 2
SPACE  ?= build/space

IN      := $(VENV:/=)
RUN     := $(IN)/bin/python
LOCK    := tests/constraints.txt
MARK    := $(IN).installing
RECENT  := import sys; sys.exit(sys.version_info < (3, 11))
.PHONY: help app test lint format audit bench space clean

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' Makefile | expand -t 16
	@echo "  Variables: PYTHON=$(PYTHON) VENV=$(VENV) PORT=$(PORT) SPACE=$(SPACE) JOBS=$(JOBS) ARGS=(more words for pytest)"

app: $(IN)/.app-installed $(IN)/.first-merge ## run the studio at http://127.0.0.1:PORT
	GRADIO_SERVER_PORT=$(PORT) $(RUN) app.py

test: $(IN)/.tests-installed ## run every test; ARGS="-k fisher" chooses some
	$(RUN) -m tests.browser
	OMP_NUM_THREADS=$(or $(OMP_NUM_THREADS),1) $(RUN) -m pytest tests/ui tests/load tests/tools tests --ignore=tests/benchmarks \
	  -n $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS)

lint: $(IN)/.tests-installed ## check style and format
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

format: $(IN)/.tests-installed ## mend style and format
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

audit: $(IN)/.tests-installed ## look up what the app installs among known vulnerabilities
	$(RUN) -m tools.audit

bench: $(IN)/.tests-installed ## run the benchmarks one by one, each in its own process
	@for file in tests/benchmarks/[a-z]*.py; do \
	  [ -e "$$file" ] || { echo "No benchmarks in tests/benchmarks."; break; }; \
	  echo "== $$file"; PYTHONPATH=. $(RUN) "$$file" || exit 1; \
	done

space: ## build the folder that is pushed as a Hugging Face Space; SPACE=DIR names another
	@$(PYTHON) -m tools.space "$(SPACE)"

clean: ## remove VENV, the tools' caches and build/space
	[ ! -e $(IN)/pyvenv.cfg ] || rm -rf $(IN)
	rm -rf $(MARK) .pytest_cache .ruff_cache .hypothesis build/space
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(IN)/.app-installed: requirements.txt $(LOCK)
	$(call install,-r requirements.txt)

# The merge that the page opens on, so that its first visitor does not wait for it. Where this fails the page makes it
# itself, and says why where it cannot.
$(IN)/.first-merge: $(IN)/.app-installed merging/zoo/digits/pool.yaml
	-@$(RUN) -m components
	@touch $@

$(IN)/.tests-installed: requirements.txt tests/requirements.txt tests/alone.txt $(LOCK)
	$(call install,-r requirements.txt -r tests/requirements.txt)
	@$(RUN) -m pip install -q --disable-pip-version-check --no-deps -r tests/alone.txt || { rm -f $@; exit 1; }
	@touch $(IN)/.app-installed

# MARK holds the process that is installing. One left over by a dead process means a half-made VENV: it is made anew.
# Only a directory with pyvenv.cfg is ever cleared, so a mistaken VENV=$HOME loses nothing.
define install
	@trap 'exit 130' INT TERM HUP; mkdir -p $(IN) || exit 1; \
	if [ -e $(MARK) ] && kill -0 "$$(cat $(MARK))" 2>/dev/null; then \
	  echo "Another make is installing into $(IN): wait for it, or delete $(MARK) if there is none." >&2; exit 1; \
	fi; \
	if [ -e $(MARK) ] || ! $(RUN) -c '$(RECENT)' 2>/dev/null || ! $(RUN) -m pip --version >/dev/null 2>&1; then \
	  $(PYTHON) -c '$(RECENT)' 2>/dev/null || { \
	    echo "Python 3.11 or newer is needed; '$(PYTHON)' is $$($(PYTHON) --version 2>/dev/null || echo missing)." >&2; \
	    echo "Name another one: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)" >&2; exit 1; }; \
	  echo $$$$ > $(MARK); \
	  if [ -e $(IN)/pyvenv.cfg ]; then $(PYTHON) -m venv --clear $(IN); else $(PYTHON) -m venv $(IN); fi || exit 1; \
	fi; \
	echo $$$$ > $(MARK); \
	echo "Installing into $(IN) (once; a minute or a few)"; \
	$(RUN) -m pip install -q --disable-pip-version-check $(1) -c $(LOCK) || { rm -f $(MARK); exit 1; }; \
	rm -f $(MARK); touch $@
endef
