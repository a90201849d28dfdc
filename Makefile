# Everything here needs Rust, Python 3 and make, and nothing else.
#   make demo        the ten examples in Rust and in Python, an index of real source files, with a worker
#                    killed half-way, and a short table beside the standard library
#   make test        all checks and tests; leaves no process and no file behind, and checks that too
#   make bench-rust  tenfold beside its peers (ROWS="queue lock" PEERS="rayon" REPEAT=5)
#   make bench-python  the same in Python (PEERS="joblib ray"); make bench: both
#   make bench-curves  how the cost grows with the work, in Python (ROWS="queue-size dict" REPEAT=3)
#   make bench-docs  all three, for some hours (REPEAT=1: 40 minutes; BENCHES="rust python": those) on a machine that does
#                    nothing else; the tables and the pictures go into docs/benchmarks.md
#   make wheel       the Python package, built and installed into target/venv
#   make test-rust   make test-python   a half of the tests
#   make chaos       every fault of docs/faults.md, several times over (TIMES=5), the slow ones too; LOAD=1: on busy cores
#   make faults      each of them as a small program, on the standard library and on tenfold: what came of it
#                    (METHOD=spawn); the table goes into docs/faults.md
#   make soak MINUTES=30  everything at once under random kills, in Rust and in Python
#   make lint        the checks alone

CARGO ?= cargo
PYTHON ?= python3
VENV := target/venv
BENCH_VENV := target/bench-venv
EXAMPLES := $(basename $(notdir $(sort $(wildcard examples/*.rs))))
PYTHON_EXAMPLES := $(sort $(wildcard examples/python/*.py))
# Seconds that the soak lasts.
SOAK ?= 20
# How many times `make chaos` runs each test, and the minutes of `make soak`.
TIMES ?= 5
MINUTES ?= 1
# The benches of `make bench-docs`.
BENCHES ?= rust python curves
# The start method of `make faults`.
METHOD ?= fork

.PHONY: demo test chaos faults soak all-tests test-rust test-python lint wheel native bench bench-rust bench-python \
	bench-venv bench-curves bench-docs

demo: wheel
	@$(CARGO) build --quiet --package tenfold --examples
	@$(CARGO) build --quiet --release --package tenfold-cli
	@for example in $(EXAMPLES); do \
		printf '\n--- examples/%s.rs\n' $$example; \
		$(CARGO) run --quiet --package tenfold --example $$example || exit 1; \
	done
	@for example in $(PYTHON_EXAMPLES); do \
		printf '\n--- %s\n' $$example; \
		$(VENV)/bin/python $$example || exit 1; \
	done
	@printf '\n--- an index of real source files\n'
	@$(CARGO) run --quiet --release --package tenfold-cli -- demo $(if $(DIR),"$(DIR)")
	@printf '\n--- the same work on the standard library and on tenfold\n'
	@$(VENV)/bin/python python/bench --demo

test:
	@python3 tools/leave_nothing.py $(MAKE) --no-print-directory all-tests

all-tests: lint test-rust test-python

test-rust:
	$(CARGO) test --workspace
	$(CARGO) test --package tenfold-shm --package tenfold --features kill-points --test 'chaos_*'
	TENFOLD_SOAK=$(SOAK) $(CARGO) test --package tenfold --test soak -- --nocapture
	RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR=target/loom $(CARGO) test --release --package tenfold-shm --lib loom
	python3 tools/kill_points.py

chaos: wheel
	@python3 tools/leave_nothing.py python3 tools/chaos.py --times $(TIMES) $(if $(LOAD),--load) --python $(VENV)/bin/python

# The table in the docs is that of fork.
faults: wheel
	@$(VENV)/bin/python tools/faults.py --method $(METHOD) $(if $(filter fork,$(METHOD)),--write docs/faults.md)

# Both side by side, and both to the end; it is an error if either fails.
soak: wheel
	@$(CARGO) test --quiet --release --package tenfold --test soak --no-run
	@$(VENV)/bin/python python/tests/chaos/soak.py --seconds $$(($(MINUTES) * 60)) & python=$$!; \
	TENFOLD_SOAK=$$(($(MINUTES) * 60)) $(CARGO) test --release --package tenfold --test soak -- --nocapture; rust=$$?; \
	wait $$python && exit $$rust

# A wheel, and a venv with it and all that its tests need.
$(VENV)/ready: python/requirements-test.txt
	@$(PYTHON) -m venv $(VENV)
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@

wheel: $(VENV)/ready
	@rm -rf target/wheels
	@$(VENV)/bin/maturin build --quiet --profile python --out target/wheels
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --force-reinstall --no-deps target/wheels/*.whl

# What pytest keeps of a run is no file that was left behind.
test-python: PYTEST = $(VENV)/bin/python -m pytest --basetemp target/pytest
test-python: wheel
	$(VENV)/bin/ruff check --quiet python
	@# What fails is run once more, alone: some tests race with the clock, and a busy machine is slow.
	$(PYTEST) --quiet -m "not slow" || $(PYTEST) --last-failed --last-failed-no-failures none
	$(VENV)/bin/python tools/cpython_suite.py

# The native module into the source tree, for work on the Python half: PYTHONPATH=python python3 …
# PROFILE=release for measuring.
native: NATIVE = $(if $(filter release,$(PROFILE)),python,python-dev)
native:
	@$(CARGO) build --quiet --package tenfold-python --profile $(NATIVE)
	@cp target/$(NATIVE)/lib_native.so python/tenfold/_native.abi3.so

lint:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	$(CARGO) clippy --package tenfold-shm --package tenfold --package tenfold-python --features kill-points --tests -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps
	python3 tools/unsafe_rooms.py

# What all three benches are told.
BENCH_OPTIONS = --rows "$(ROWS)" $(if $(REPEAT),--repeat $(REPEAT)) $(if $(LIMIT),--limit $(LIMIT))

bench-rust:
	@$(CARGO) run --quiet --release --package tenfold-bench -- $(BENCH_OPTIONS) --peers "$(PEERS)"
	@PYTHONPATH=python $(PYTHON) -m bench.picture target/bench-rust.json

bench: bench-rust bench-python

# A peer that cannot be installed is printed as such.
$(BENCH_VENV)/ready: python/requirements-bench.txt
	@$(PYTHON) -m venv $(BENCH_VENV)
	@grep -v '^#' $< | while read -r peer; do \
		$(BENCH_VENV)/bin/python -m pip install --quiet --disable-pip-version-check $$peer || echo "without $$peer"; \
	done
	@touch $@

# The wheel that `make wheel` has built, beside the peers.
bench-venv: wheel $(BENCH_VENV)/ready
	@$(BENCH_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --force-reinstall --no-deps target/wheels/*.whl

bench-python: bench-venv
	@$(BENCH_VENV)/bin/python python/bench $(BENCH_OPTIONS) --peers "$(PEERS)"

bench-curves: bench-venv
	@$(BENCH_VENV)/bin/python python/bench --curves $(BENCH_OPTIONS)

# Built first, so that nothing but the benches runs while they measure.
bench-docs: bench-venv
	@$(CARGO) build --quiet --release --package tenfold-bench
	@for bench in $(BENCHES); do $(MAKE) --no-print-directory bench-$$bench | tee target/bench-$$bench.txt; done
	@PYTHONPATH=python $(PYTHON) -m bench.docs $(BENCHES)
