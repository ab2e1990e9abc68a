PYTHON ?= python3
BIN := .venv/bin
READY := .venv/installed.stamp
EXTRAS := book,dense,site,export,executorch,runtimes,test,dev
# What the library computes, and each of its optional libraries; nothing that renders the book.
LOWEST := attribution claims cli coreml datasets export_cli models ops recipe reparam runtimes weights
SITE := $(BIN)/jupyter-book build -W -n --keep-going --path-output build
RENDERED = @echo "The book is at file://$(CURDIR)/build/_build/html/index.html"
# Core ML Tools, which two chapters import, have no release for Python 3.14.
CHECK_PYTHON = @$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14) and \
	f"Python 3.11, 3.12 or 3.13 is needed, this is {sys.version.split()[0]}: make PYTHON=python3.11")'

.PHONY: help book html pdf notebooks test lint faults lowest swift links constraints release clean
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

pdf: html  ## Print the rendered book into build/paperrepro.pdf, where a chromium is
	$(BIN)/python book/pdf.py

notebooks: $(READY)  ## Run every chapter and save its outputs and costs in place
	$(BIN)/python book/execute.py --save

test: lint  ## Check style and types, run the tests, then every notebook against its outputs
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal
	OMP_NUM_THREADS=1 PYTHONHASHSEED=0 $(BIN)/pytest -n 2 --dist loadscope \
		--nbval-lax --nbval-current-env --nbval-cell-timeout=600 book

lint: $(READY)  ## Check style, types and the recurring faults of English only
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python .ci/prose.py

faults: $(READY)  ## Provoke faults at random, by the thousand: modules, files, packages, commands
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.faults

lowest:  ## Run the fast tests at the lowest versions that pyproject.toml allows
	$(CHECK_PYTHON)
	$(PYTHON) -m venv --clear build/lowest
	build/lowest/bin/pip install -q uv
	build/lowest/bin/uv pip install -q --python build/lowest/bin/python \
		--resolution lowest-direct -e ".[book,dense,export,runtimes,train,test]"
	OMP_NUM_THREADS=1 build/lowest/bin/python -m pytest -n 2 -m "not slow" \
		$(foreach name,$(LOWEST),tests/test_$(name).py)

swift:  ## Build and test the Swift package, where a Swift toolchain stands
	tests/swift/check

links: $(READY)  ## Visit every link of the book (needs the network)
	$(BIN)/jupyter-book build --builder linkcheck --path-output build/links book

constraints:  ## Resolve the newest versions that fit and write constraints.txt
	$(PYTHON) -m venv --clear build/constraints
	build/constraints/bin/pip install ".[$(EXTRAS),train,coreai,shards]"
	{ echo "# Exact versions, resolved together; used by the Makefile and CI, not by the package itself."; \
	  echo "# Written by 'make constraints'."; \
	  build/constraints/bin/pip freeze --all --exclude pip --exclude paperrepro; } > constraints.txt

release:  ## Write a version wherever it stands: make release VERSION=0.2.0
	$(PYTHON) .ci/release.py $(VERSION)

clean:  ## Remove what was built, the environment included
	rm -rf .venv build dist

$(READY): pyproject.toml constraints.txt
	$(CHECK_PYTHON)
	@echo "Setting up .venv: some minutes, and about 6 GB where PyTorch brings CUDA (Linux)."
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --disable-pip-version-check -c constraints.txt -e ".[$(EXTRAS)]"
	@touch $@
