# Everything a developer or a curious reader runs. On a fresh machine only Python (>= 3.11), git and make are needed:
#   make demo     both methods, end to end, on synthetic cases; writes demo/report.html
#   make test     the tests that CI runs
# Variables: PYTHON (the interpreter .venv is made from), TORCH_INDEX (a package index for torch alone, for example
# https://download.pytorch.org/whl/cpu for the small CPU build), PYTEST_ARGS (passed on to pytest), WORKERS (how many
# tests run beside each other, where they may).

PYTHON ?= $(firstword $(foreach name,python3.12 python3.11 python3.13 python3,$(if $(shell $(name) -c "import sys; print(sys.version_info >= (3, 11) or '')" 2>/dev/null),$(name))))
TORCH_INDEX ?=
PYTEST_ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
STAMP := $(VENV)/.installed
SOURCES := medmae Testing $(wildcard MedMAESegment MedMAETrain SegmentEditorMedMAE)

# Shared libraries behind PySide6 (offscreen) and VTK, and the Debian packages that bring them.
SYSTEM_LIBRARIES := libEGL.so.1 libGL.so.1 libglib-2.0.so.0 libxkbcommon.so.0 libdbus-1.so.3 libfontconfig.so.1 libX11.so.6 libXrender.so.1
LIBRARY_PACKAGES := libegl1 libgl1 libgl1-mesa-dri libglib2.0-0 libxkbcommon0 libdbus-1-3 libfontconfig1 libx11-6 libxrender1
# Programs of the tests of jobs (Testing/remote), which start servers of their own, and the packages that bring them.
JOBS_PROGRAMS := ssh sshd slurmctld slurmd munged mungekey rsync ip ps
JOBS_PACKAGES := openssh-client openssh-server slurm-wlm munge rsync iproute2 procps

# Tiny networks do not profit from many threads, and a crowded machine suffers from them.
CORES := $(shell n=$$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2); [ $$n -gt 4 ] && echo 4 || echo $$n)
export OMP_NUM_THREADS ?= $(CORES)
WORKERS ?= $(CORES)

.PHONY: help venv system system-jobs demo test test-all bench lint clean
.DEFAULT_GOAL := help

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

venv: $(STAMP)  ## .venv with everything (repeated only when pyproject.toml or constraints.txt change)

$(STAMP): pyproject.toml constraints.txt
	@[ -n "$(PYTHON)" ] || { echo "No Python >= 3.11 was found. Install one, or name it: make venv PYTHON=/path/to/python3"; exit 1; }
	@$(MAKE) --no-print-directory system
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "The virtual environment could not be made. On Debian and Ubuntu: apt-get install python3-venv"; exit 1; }
	@echo "Installing into $(VENV); the first time this takes minutes."
	@$(PIP) install $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) -c constraints.txt torch
	@$(PIP) install -c constraints.txt -e '.[report,dicom,slicer,test]'
	@touch $@

# What is missing, and the Debian packages that bring it: $(call install_missing,what needs them,packages)
define install_missing
	[ -n "$$missing" ] || exit 0; \
	echo "Missing on this system:$$missing"; \
	if ! command -v apt-get >/dev/null; then \
	  echo "  skipped: no apt-get here. Install what brings them; only $(1) need them."; \
	elif [ "$$(id -u)" -ne 0 ]; then \
	  echo "  skipped: not root. Only $(1) need them. To install them:"; \
	  echo "  sudo apt-get install --no-install-recommends $(2)"; \
	elif ! { apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends $(2) >/dev/null; }; then \
	  echo "  skipped: apt-get failed (see above). Only $(1) need them."; \
	fi
endef

system:  ## the system libraries of PySide6 and VTK (Debian, Ubuntu; installs only as root)
	@missing=; known=$$(PATH="$$PATH:/sbin:/usr/sbin" ldconfig -p 2>/dev/null) || exit 0; \
	for library in $(SYSTEM_LIBRARIES); do \
	  case "$$known" in *"$$library "*) ;; *) missing="$$missing $$library";; esac; \
	done; \
	$(call install_missing,the tests of the Slicer modules,$(LIBRARY_PACKAGES))

# The packages start an SSH server and a scheduler for the whole machine; the tests start their own, so these are kept
# from starting (policy-rc.d is what Debian asks).
system-jobs:  ## sshd, Slurm and rsync for the tests of jobs (Debian, Ubuntu; installs only as root, starts no service)
	@export PATH="$$PATH:/sbin:/usr/sbin:/usr/local/sbin"; missing=; \
	for program in $(JOBS_PROGRAMS); do \
	  command -v $$program >/dev/null || missing="$$missing $$program"; \
	done; \
	policy=/usr/sbin/policy-rc.d; \
	if [ -n "$$missing" ] && [ "$$(id -u)" -eq 0 ] && [ -d /usr/sbin ] && [ ! -e $$policy ]; then \
	  printf '#!/bin/sh\nexit 101\n' > $$policy && chmod 755 $$policy && trap 'rm -f /usr/sbin/policy-rc.d' EXIT; \
	fi; \
	$(call install_missing,the tests of jobs,$(JOBS_PACKAGES))

demo: venv  ## pretrain, finetune and segment synthetic cases with both methods; writes demo/report.html
	@$(BIN)/medmae demo --out demo

# First the tests that may run beside others, then the rest one by one, whatever the first have said. A phase without a
# test (5) is no fault where PYTEST_ARGS has chosen some and the other phase has had them: $(call run_tests,options)
define run_tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --phase=together \
	  -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(1); together=$$?; \
	$(BIN)/python -m pytest --phase=alone $(1); alone=$$?; \
	case "$$together $$alone" in "0 0"$(if $(strip $(PYTEST_ARGS)),|"0 5"|"5 0")) exit 0;; esac; \
	echo "The tests side by side ended with $$together, those alone with $$alone (0: passed, 5: there were none)."; exit 1
endef

test: venv system-jobs  ## the tests, without the slow ones
	@$(call run_tests,-m "not slow and not gpu" $(PYTEST_ARGS))

test-all: venv system-jobs  ## all tests that this machine can run
	@$(call run_tests,$(PYTEST_ARGS))

bench: venv  ## speed, measured side by side with the peers on this machine
	@$(PIP) install -c constraints.txt -e '.[bench]'
	@$(BIN)/python Testing/benchmarks/inference.py --quick --out bench/inference
	@for script in Testing/benchmarks/*_mae_pretraining.py; do $(BIN)/python "$$script" || exit 1; done

lint: venv  ## ruff and mypy
	@$(BIN)/ruff check $(SOURCES)
	@$(BIN)/mypy

clean:  ## remove what the tools left behind (not .venv)
	@rm -rf demo bench build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find medmae Testing $(wildcard MedMAESegment MedMAETrain SegmentEditorMedMAE) -name __pycache__ -type d -prune -exec rm -rf {} +
