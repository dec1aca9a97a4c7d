# make help lists the targets. Everything happens in $(VENV), which is made when it is not there.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules

VENV ?= .venv
PYTHON ?= $(or $(shell command -v python3.11),$(shell command -v python3))
JOBS ?= $(shell n=$$(nproc); echo $$((n < 8 ? n : 8)))
PYTEST_ARGS ?= -n $(JOBS) --dist worksteal
SUITES ?=
BENCH_ARGS ?=
SCHEDULES ?= 3
DEMO_ARGS ?= --output demo-output

TORCH := torch==2.14.1 torchvision==0.29.1
BUILD_TOOLS := setuptools>=77 cmake>=3.25 ninja

python := $(VENV)/bin/python
pip_install := $(python) -m pip install --quiet
stamps := $(VENV)/.deformops
say = @printf '\033[1m%s\033[0m\n' "deformops: $(1)"
on_simulated = $(python) -m deformops.simulation run
device_tests = $(python) -m pytest --device simulated --every-kernel
# One make at a time changes the environment.
exclusive = flock $(stamps)/lock

.PHONY: help build native simulated demo test test-simulated bench docs lint format wheel clean

help:  ## list the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1|\2/p' $(MAKEFILE_LIST) | column -t -s '|'

build: native $(stamps)/editable  ## compile what changed, into this checkout

native: $(stamps)/environment
	$(call say,compiling what changed (DEFORMOPS_CUDA=OFF leaves the CUDA kernels out))
	@$(python) setup.py --quiet build_ext --inplace

simulated: $(stamps)/editable $(stamps)/test  ## compile the simulated CUDA device too (csrc/simulation)
	$(call say,compiling the simulated CUDA device)
	@DEFORMOPS_SIMULATION=ON $(python) setup.py --quiet build_ext --inplace

demo: build $(stamps)/viz  ## run the demo on a real photo; pictures go to demo-output/
	$(call say,running the demo)
	@$(python) -m deformops demo $(DEMO_ARGS)

test: build $(stamps)/test  ## run the whole test-suite (PYTEST_ARGS="-k nms" for a part)
	$(call say,running the tests)
	@$(python) -m pytest $(PYTEST_ARGS)

test-simulated: simulated  ## run the CUDA kernels on the simulated device: values, races, bounds
	$(call say,its own tests)
	@DEFORMOPS_SIMULATION=ON $(python) -m pytest tests/simulation $(PYTEST_ARGS)
	$(call say,values: the plain build under $(SCHEDULES) schedules)
	@$(on_simulated) plain -- $(device_tests) --schedules $(SCHEDULES) $(PYTEST_ARGS)
	$(call say,races and bounds: every kernel in the race build under 2 schedules)
	@$(on_simulated) race -- $(device_tests) -m variants --schedules 2 $(PYTEST_ARGS)
	$(call say,every kernel in the asan build)
	@$(on_simulated) asan -- $(device_tests) -m variants $(PYTEST_ARGS)
	$(call say,finite differences and torch's machinery)
	@$(python) -m deformops check --device simulated

bench: build $(stamps)/bench  ## run the benchmarks (SUITES="deform_conv" BENCH_ARGS="--quick" for a part)
	$(call say,running the benchmarks)
	@$(python) -m benchmarks $(SUITES) $(BENCH_ARGS)

docs: build $(stamps)/docs $(stamps)/viz  ## build the manual into build/docs
	$(call say,building the manual)
	@NO_MKDOCS_2_WARNING=1 $(python) -m mkdocs --quiet build --strict

lint: $(stamps)/dev $(stamps)/test  ## ruff, mypy, clang-format: the checks of .pre-commit-config.yaml
	$(call say,checking style and types)
	@PATH="$(CURDIR)/$(VENV)/bin:$$PATH" pre-commit run --all-files

format: $(stamps)/dev  ## rewrite Python and C++ sources in the project's style
	$(call say,formatting)
	@$(VENV)/bin/ruff check --fix-only --quiet . && $(VENV)/bin/ruff format --quiet .
	@git ls-files '*.cpp' '*.h' '*.cu' '*.cuh' | xargs -r $(VENV)/bin/clang-format -i

wheel: $(stamps)/environment  ## build a wheel into dist/
	$(call say,building a wheel)
	@$(python) -m pip wheel --quiet --no-build-isolation --no-deps --wheel-dir dist .
	@ls dist/*.whl

clean:  ## remove what was built; keeps the environment
	$(call say,removing build products)
	@rm -rf build dist demo-output deformops/libdeformops.so deformops/share deformops/simulation/*.so $(stamps)/editable

# --- the environment ------------------------------------------------------------------------------

$(python):
	$(call say,making $(VENV) with $(PYTHON))
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python >= 3.10 is needed: make PYTHON=...")'
	@$(PYTHON) -m venv $(VENV)

$(stamps)/environment: Makefile | $(python)
	$(call say,making sure of $(TORCH) and the build tools in $(VENV))
	@mkdir -p $(stamps) && $(exclusive) $(pip_install) $(foreach package,$(TORCH) $(BUILD_TOOLS),'$(package)')
	@touch $@

$(stamps)/editable: pyproject.toml setup.py $(stamps)/environment | native
	$(call say,installing this checkout into $(VENV) (editable))
	@$(exclusive) $(pip_install) --no-build-isolation --editable .
	@touch $@

# An extra's packages alone: the checks, for one, need no compiled library.
define print_extra
import sys
try:
    import tomllib
except ModuleNotFoundError:
    from pip._vendor import tomli as tomllib
with open("pyproject.toml", "rb") as file:
    print(*tomllib.load(file)["project"]["optional-dependencies"][sys.argv[1]], sep="\n")
endef
export print_extra

$(addprefix $(stamps)/,viz nets bench test dev docs): $(stamps)/%: pyproject.toml $(stamps)/environment
	$(call say,making sure of the packages of [$*] in $(VENV))
	@$(exclusive) $(pip_install) --requirement <($(python) -c "$$print_extra" $*)
	@touch $@
