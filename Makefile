# Every target that needs an environment brings it up to date first; that takes a second when
# nothing has changed. What takes more than two lines is in tools/.
SHELL := bash
ARGS ?=
SECONDS ?= 10

.DEFAULT_GOAL := help
.PHONY: help litmus test-programs venvs venv venv-gil dev check demo test test-long test-arm64 test-i386 \
	test-parallel test-pthread test-cpython test-cpython-all test-versions test-here sdist wheels docs lint-workflows stress fuzz bench bench-quick \
	bench-peers bench-report bench-native headers-check models mutants levels tsan asan lint format clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 24

venv: # 3.13t, the GIL off
	@tools/environment.sh .venv free

venv-gil: # the newest CPython of the machine with a GIL
	@tools/environment.sh .venv-gil gil

# The build with the GIL comes first: both take what it translates to C, and on 3.13t Cython is slower,
# on a busy machine much (a PyMutex of the interpreter yields whenever it is held).
venvs: venv-gil venv ## make or update both environments: .venv (3.13t) and .venv-gil

demo: venv ## run two programs on threading and, unchanged, on fastsync
	@tools/demo.sh .venv

dev: ## make or update .venv-dev: an editable debug build, for editors and a quick loop
	@FASTSYNC_DEBUG=1 tools/environment.sh .venv-dev free editable

check: venvs ## before a commit: style, types and the fast tests of what has changed
	@.venv-gil/bin/python tools/check.py $(ARGS)

test: venvs ## run all checks and the suite on both builds (ARGS="..." goes to pytest)
	@status=0; tools/lint.sh .venv-gil || status=1; \
	tools/run_tests.sh .venv .venv-gil -- -m "not slow" $(ARGS) || status=1; exit $$status

test-long: venvs ## run the tests that take long, on both builds
	@LABEL=test-long tools/run_tests.sh .venv .venv-gil -- -m slow $(ARGS)

test-pthread: ## run the suite on 3.13t with the pthread wait backend
	@FASTSYNC_WAIT=pthread tools/environment.sh .venv-pthread free
	@tools/run_tests.sh .venv-pthread -- $(ARGS)

test-parallel: ## run the suite on 3.13t with each test in four threads at once
	@tools/environment.sh .venv-parallel free
	@tools/run_parallel.sh .venv-parallel $(ARGS)

test-cpython: venvs ## run CPython's own tests on fastsync, on both builds
	@status=0; for venv in .venv .venv-gil; do \
	$$venv/bin/python tools/run_cpython_tests.py $(ARGS) || status=1; done; exit $$status

test-cpython-all: venvs ## run all of CPython's tests, stock against fastsync; goes on where it was ended
	@status=0; for venv in .venv .venv-gil; do \
	$$venv/bin/python tools/run_cpython_tests.py --all $(ARGS) || status=1; done; exit $$status

test-programs: venvs ## run other people's suites on fastsync; goes on where it was ended (ARGS="trio")
	@.venv-gil/bin/python tools/programs/run.py $(ARGS)

test-versions: ## run the suite and CPython's own tests on 3.11 to 3.15 (ARGS="3.14 3.15" for some)
	@tools/test_versions.sh $(ARGS)

test-here: ## install into the Python named by PYTHON=... and run the suite there
	@tools/test_here.sh $(or $(PYTHON),python3) $(ARGS)

sdist: ## make the source distribution, in dist/
	@tools/make_wheels.sh --sdist

wheels: ## make and test a manylinux wheel for each Python at hand (ARGS="3.13t 3.14" for some)
	@tools/make_wheels.sh $(ARGS)

docs: venv-gil ## make the documentation site, in build/site
	@tools/make_docs.sh .venv-gil

lint-workflows: ## check .github/workflows
	@tools/lint_workflows.sh

bench: venv ## measure fastsync beside threading and its peers on 3.13t (see bench/README.md)
	@.venv/bin/python bench/run.py $(ARGS)

bench-quick: venv ## the same with few rounds: a first impression
	@.venv/bin/python bench/run.py --quick $(ARGS)

bench-peers: venv ## install the packages that fastsync is measured beside
	@tools/bench_peers.sh .venv

bench-report: ## measure on an optimized 3.13t and write docs/performance.md and its plots
	@tools/bench_report.sh $(ARGS)

bench-native: venv ## measure the raw locks beside Rust's, C's and CPython's own
	@tools/bench_native.sh .venv $(ARGS)

stress: venvs ## run the storms, each for SECONDS=10, on both builds (ARGS="..." names some)
	@for venv in .venv .venv-gil; do \
	$$venv/bin/python tools/stress.py --seconds $(SECONDS) $(ARGS) || exit 1; done

fuzz: venvs ## misuse every type, each for SECONDS=10, on both builds (ARGS="guards" names some)
	@tools/fuzz.sh $(SECONDS) $(ARGS)

headers-check: venv ## compile for later Pythons and for other systems; run the wait backends where it can be done
	@tools/check_headers.sh .venv
	@tools/check_targets.sh

test-arm64: venv-gil ## run tests on Debian's CPython for arm64, under qemu (ARGS="tests/test_lock.py" for some)
	@tools/test_foreign.sh arm64 $(ARGS)

test-i386: venv-gil ## the same for 32 bits
	@tools/test_foreign.sh i386 $(ARGS)

models: ## check the Promela models of the locks, and that their mutants fail
	@tools/check_models.py $(ARGS)

litmus: ## check the locks' orders on weak memory models, and that each is needed (herd7)
	@tools/get_herd.sh
	@tools/check_litmus.py $(ARGS)

levels: venv ## ten million operations of each kind and 100,000 threads: nothing grows
	@.venv/bin/python tools/levels.py $(ARGS)

mutants: venv ## break the locks in all ways of tools/mutants.txt: who notices? (ARGS="words")
	@.venv/bin/python tools/mutate.py $(ARGS)

tsan: venv ## storms under ThreadSanitizer, then with planted races
	@.venv/bin/python tools/sanitize.py thread $(ARGS)

asan: venv ## storms and the suite under AddressSanitizer and UBSan
	@.venv/bin/python tools/sanitize.py address $(ARGS)

lint: venv-gil ## ruff, Cython's warnings, stubtest
	@tools/lint.sh .venv-gil

format: venv-gil ## let ruff format the Python files
	@.venv-gil/bin/ruff check -q --fix . ; .venv-gil/bin/ruff format -q .

clean: ## remove the environments and everything built (the cached interpreter stays)
	rm -rf .venv .venv-gil .venv-dev .venv-3* .venv-pthread .venv-parallel .venv-optimized build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
