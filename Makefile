PYTHON ?= python3
BIN := .venv/bin
READY := .venv/installed.stamp
EXTRAS := book,site,export,runtimes,test
SITE := $(BIN)/jupyter-book build -W -n --keep-going --path-output build
RENDERED = @echo "The book is at file://$(CURDIR)/build/_build/html/index.html"

.PHONY: help book html notebooks test lint links constraints clean
.DEFAULT_GOAL := help

help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

book: $(READY)  ## Run every chapter afresh and render the book (checkout untouched)
	$(BIN)/python book/execute.py
	$(SITE) build/book
	$(RENDERED)

html: $(READY)  ## Render the book from the committed outputs, within a minute
	$(SITE) book
	$(RENDERED)

notebooks: $(READY)  ## Run every chapter and save its outputs and costs in place
	$(BIN)/python book/execute.py --save

test: lint  ## Check style, run the tests, then every notebook against its outputs
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadgroup
	OMP_NUM_THREADS=1 PYTHONHASHSEED=0 $(BIN)/pytest -n 2 --dist loadscope \
		--nbval-lax --nbval-current-env --nbval-cell-timeout=600 book

lint: $(READY)  ## Check style only
	$(BIN)/ruff check .

links: $(READY)  ## Visit every link of the book (needs the network)
	$(BIN)/jupyter-book build --builder linkcheck --path-output build/links book

constraints:  ## Resolve the newest versions that fit and write constraints.txt
	$(PYTHON) -m venv --clear build/constraints
	build/constraints/bin/pip install ".[$(EXTRAS),train,coreai]"
	{ echo "# Exact versions, resolved together; used by the Makefile and CI, not by the package itself."; \
	  echo "# Written by 'make constraints'."; \
	  build/constraints/bin/pip freeze --all --exclude pip --exclude paperrepro; } > constraints.txt

clean:  ## Remove what was built, the environment included
	rm -rf .venv build dist

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
		f"Python 3.11 or newer is needed, this is {sys.version.split()[0]}: make PYTHON=python3.11")'
	@echo "Setting up .venv: some minutes, and about 6 GB where PyTorch brings CUDA (Linux)."
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --disable-pip-version-check -c constraints.txt -e ".[$(EXTRAS)]"
	@touch $@
