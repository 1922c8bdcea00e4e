# Two commands: `make book` and `make test`; while you work, `make check`. Each sets up .venv from nothing and does only what is not done yet.
PYTHON  ?= python3
PROFILE ?= laptop
VENV    ?= .venv
JOBS    ?= 2

BIN   := $(VENV)/bin
STAMP := $(VENV)/.installed
SITE  := $(if $(filter laptop,$(PROFILE)),build/html,build/$(PROFILE)/html)

# pip would compile 23,000 modules, most of which nothing imports; each is compiled, and kept, when it is first imported.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: book test check types lessons dist dft lint format lab figure figures course keep clean help

book: $(STAMP)  ## execute the lessons and build the book (PROFILE=smoke: small, beside the reader's book)
	@echo "Lessons of profile $(PROFILE): executing what is not fresh."
	@$(BIN)/crossfunc run --profile $(PROFILE)
	@echo "Book: building strictly."
	@$(BIN)/python book/build.py --profile $(PROFILE) --real-data
	@test -f $(SITE)/index.html

# Files go to processes whole, so that what is made once for a file is made once; in their order, because the book's test
# is slow and early. One BLAS thread each: matrices are small, and more threads only get in each other's way.
test: $(STAMP)  ## run every test, JOBS=2 files at a time: the library, the lessons, the strict book build, each page in a browser
	@OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder

# What a pull request waits for; everything else is `make test`.
check: $(STAMP) lint types  ## style, types and the quick tests: no training, no lessons, no book (2 minutes on 2 cores)
	@OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/python -m pytest -q -n $(JOBS) --dist loadfile -m "not slow and not book"

types: $(STAMP)  ## check the types of the package
	@$(BIN)/mypy

lessons: $(STAMP)  ## execute every lesson in its smallest form (LESSONS="03 04" for some)
	@$(BIN)/crossfunc run $(LESSONS) --profile smoke --jobs $(JOBS)

dist: $(STAMP)  ## build the wheel and the source archive into dist/
	@$(BIN)/python -m pip -q --disable-pip-version-check install build
	@$(BIN)/python -m build --outdir dist .

dft: $(STAMP)  ## install GPAW, which computes labels (Debian: apt-get install libxc-dev libopenblas-dev libfftw3-dev first)
	@GPAW_CONFIG=$${GPAW_CONFIG:-$(CURDIR)/.ci/gpaw_siteconfig.py} $(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e '.[dft]'

lint: $(STAMP)  ## check style and format
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

format: $(STAMP)  ## mend what `make lint` can mend
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

lab: $(STAMP)  ## open the lessons in JupyterLab (right click on a .py file: Open With, Notebook)
	@$(BIN)/jupyter lab --notebook-dir=. notebooks

figure: $(STAMP)  ## renew the README's figure from lesson 3
	@$(BIN)/crossfunc run 03 --profile $(PROFILE)
	@$(BIN)/python book/build.py --profile $(PROFILE) --story-figure

figures: $(STAMP)  ## write every figure as SVG and PDF to build/figures, for slides
	@$(BIN)/crossfunc run --profile $(PROFILE)
	@$(BIN)/crossfunc figures --profile $(PROFILE)

course: $(STAMP)  ## write editions for students and instructors, groups' folders, quizzes, slides and a hand-out to build/course
	@$(BIN)/crossfunc run --profile $(PROFILE)
	@$(BIN)/crossfunc course --profile $(PROFILE)

keep: $(STAMP)  ## keep a long run for the book: make keep PROFILE=converged LESSON=07 (after crossfunc run 07 --profile converged)
	@$(BIN)/python book/build.py --profile $(PROFILE) --keep $(LESSON)

clean:  ## remove everything derived, except .venv
	rm -rf build .pytest_cache .ruff_cache .hypothesis

help:  ## list these commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# The stamp is written last, so an install that failed half-way is tried again.
$(STAMP): pyproject.toml constraints.txt
	@rm -f $@
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) not found: install Python 3.11 or 3.12, or name yours: make book PYTHON=/path/to/python" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' || { echo "crossfunc needs Python 3.11 or 3.12 (chgnet has no packages for newer ones), $(PYTHON) is another; name one: make book PYTHON=python3.12" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "$(PYTHON) cannot make virtual environments; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@echo "Installing crossfunc and its tools into $(VENV) (a few GB the first time; minutes)."
	@$(BIN)/python -m pip install -qq --no-compile --disable-pip-version-check -c constraints.txt -e '.[book,course,train,mp,cluster,dev]'
	@touch $@
