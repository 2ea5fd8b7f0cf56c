# Each target does its own set-up: a virtual environment in .venv with everything pinned in
# constraints.txt. `make gpu` is the exception, for a machine that has PyTorch and no network.
#
# PYTHON=python3.12 make test   chooses the interpreter when .venv is made

PYTHON ?= python3
PY := .venv/bin/python
READY := .venv/.ready
PIP := $(PY) -m pip --quiet --disable-pip-version-check
NATIVE := setup.py CMakeLists.txt $(shell find csrc -type f)
CPP := $(shell find csrc tests/csrc -name '*.h' -o -name '*.cpp' -o -name '*.cu')

.PHONY: demo test bubblewrap lint sanitize bench gpu gpu-training gpu-experiment format clean

demo: $(READY)
	.venv/bin/codeact demo

# Two processes, a file in one of them; then, alone, the tests that measure time.
WORKERS ?= 2
test: $(READY) bubblewrap
	@failed=0; \
	OMP_NUM_THREADS=1 $(PY) -m pytest -q -m 'not alone' -n $(WORKERS) --dist loadfile \
	  --no-loadscope-reorder || failed=1; \
	$(PY) -m pytest -q -m alone || failed=1; \
	exit $$failed

# The tests of the sandbox need bwrap. Without it they are reported as not run; the rest are run.
bubblewrap:
	@command -v bwrap >/dev/null && exit; \
	test "$$(id -u)" = 0 && as_root= || as_root='sudo -n'; \
	install="$$as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y bubblewrap"; \
	if command -v apt-get >/dev/null && $$as_root true 2>/dev/null && \
	  { $$install || { $$as_root apt-get -qq update && $$install; }; } >&2; then \
	  echo "bubblewrap is installed" >&2; \
	else echo "bubblewrap is not installed: the tests of the sandbox will not be run" >&2; fi

lint: $(READY)
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/clang-format --dry-run -Werror $(CPP)
	.venv/bin/mypy

# The C++ without Python, every access and overflow checked. Needs a compiler only.
SANITIZED := build/csrc-tests
sanitize:
	mkdir -p $(dir $(SANITIZED))
	$(CXX) -std=c++17 -O0 -g -Wall -Wextra -Werror -D_GLIBCXX_ASSERTIONS \
	  -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer -pthread \
	  -Icsrc tests/csrc/*.cpp $(filter-out csrc/bindings%.cpp,$(wildcard csrc/*.cpp)) -o $(SANITIZED)
	$(SANITIZED)

bench: $(READY)
	for bench in benchmarks/bench_*.py; do $(PY) "$$bench" || exit; done

format: $(READY)
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .
	.venv/bin/clang-format -i $(CPP)

# torch first and by its pin alone, so that the CPU build is taken where pip is shown one.
$(READY): pyproject.toml constraints.txt $(NATIVE)
	@echo "setting up .venv; the first time this takes a few minutes" >&2
	test -x $(PY) || $(PYTHON) -m venv .venv || $(MAKE) --no-print-directory venv-without-ensurepip
	$(PIP) install "$$(grep -m1 '^torch==' constraints.txt)"
	$(PIP) install -c constraints.txt -e '.[dev,demo]'
	$(PIP) install --no-deps "$$(grep -m1 '^evalplus==' constraints.txt)"
	touch $(READY)

# Debian ships venv without the pip that goes into it.
.PHONY: venv-without-ensurepip
venv-without-ensurepip:
	$(PYTHON) -m venv --clear --without-pip .venv
	$(PYTHON) -m pip --quiet --python $(PY) install pip

# On the machine's own Python, offline, in under 9 minutes. Each step has its share of them, and all
# are taken: on a machine that is rarely there, a failed test must not keep the benchmarks from running.
GPU_TESTS = $(shell grep -rlE --include='test_*.py' 'mark\.gpu' tests)
SMALL_CASES = -m 'not slow' -k 'matches_float64 or all_options or row_lse_cuda or gather_pack'
gpu: export PYTHONPATH := $(CURDIR)
gpu:
	@failed=; step() { echo "== $$*" >&2; timeout "$$@" || failed="$$failed, $$2 $$3 $$4"; }; \
	step 90 $(PYTHON) setup.py --quiet build_ext --inplace; \
	step 130 $(PYTHON) -m pytest -q -m gpu $(GPU_TESTS); \
	if command -v compute-sanitizer >/dev/null; then \
	  step 80 compute-sanitizer --error-exitcode 1 \
	    $(PYTHON) -m pytest -q $(SMALL_CASES) tests/kernels tests/ops; \
	else echo "compute-sanitizer is not installed: memory not checked" >&2; fi; \
	for bench in 40:linear_nll 40:ifd 40:influence 10:token_nll 15:attention_jvp 10:packing \
	  30:padding 35:hdbscan 20:kmeans; do \
	  step $${bench%:*} $(PYTHON) benchmarks/bench_$${bench#*:}.py; done; \
	test -z "$$failed" || { echo "failed$$failed" >&2; exit 1; }

# Too long to go with the others: epochs at 7 billion parameters, and the grid in parts of 8 minutes
# that go on from each other. WORK=FOLDER keeps the grid's cells.
WORK ?= build/experiment
gpu-training gpu-experiment: export PYTHONPATH := $(CURDIR)
gpu-training:
	timeout 540 $(PYTHON) benchmarks/bench_training.py
gpu-experiment:
	timeout 540 $(PYTHON) benchmarks/experiment.py $(WORK) --gpu --minutes 8

# Without the module the environment is not ready either.
clean:
	rm -rf build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis $(READY)
	rm -f codeact/_C*.so codeact/sandbox/codeact-launcher
	find . -path ./.venv -prune -o -name __pycache__ -prune -exec rm -rf {} +
