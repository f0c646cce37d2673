# `make demo` and `make test` are the only targets that users need. The other targets are for development.
.DEFAULT_GOAL := help
.PHONY: help setup torch demo test test-long check format docs docs-output lock vendor bench-startup bench-serve bench-batch \
	bench-redis bench-queue bench-jobs bench-processes bench-check bench-store bench-dialects bench-unseen \
	bench-unseen-tables bench-hard fuzz fuzz-tensors fuzz-onnx mutants check-security drill drill-history drill-jobs \
	drill-services measured clean

PY := .venv/bin/python
READY := .venv/.ready

help:  ## List all targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-19s %s\n", $$1, $$2}'

setup: $(READY)  ## Create .venv from the lock file and check every package against its hash

$(READY): requirements/lock.txt pyproject.toml
	@scripts/setup.sh
	@touch $@

torch: $(READY)  ## Install PyTorch for the mlp candidate, with CUDA packages if no CPU wheel is available
	@scripts/torch.sh

demo: $(READY)  ## Train a model on the loan example and serve it on http://127.0.0.1:8000
	@scripts/demo.sh

test: $(READY)  ## Install missing system packages where possible, then run every test
	@scripts/system-packages.sh test
	@scripts/torch.sh offered
	@scripts/clients.sh
	@$(PY) -m pytest -m "not long" --numprocesses auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder $(ARGS)

test-long: $(READY)  ## Run the tests of failures that take too long for `make test`
	@scripts/system-packages.sh test
	@$(PY) -m pytest -m long $(ARGS)

check: $(READY)  ## Check formatting, lint rules, types, import layers and repository rules
	@$(PY) -m ruff format --check --quiet --output-format=concise
	@$(PY) -m ruff check --quiet
	@$(PY) -m mypy
	@.venv/bin/lint-imports
	@$(PY) scripts/check_tree.py

format: $(READY)  ## Format the code and apply ruff's automatic fixes
	@$(PY) -m ruff format --quiet
	@$(PY) -m ruff check --fix --quiet

docs: $(READY)  ## Regenerate the reference pages that are derived from the code
	@$(PY) scripts/docs.py

docs-output: $(READY)  ## Run the commands in the documentation and replace outdated output
	@$(PY) -m pytest -n 0 -q tests/architecture/test_docs.py -k output_shown --update-docs

lock: $(READY)  ## Regenerate the lock files; ARGS=--upgrade selects newer versions
	@scripts/lock.sh $(ARGS)

vendor:  ## Download the page assets listed in vendor.json and verify their digests
	@python3 scripts/vendor.py $(ARGS)

# The bench-*, fuzz* and drill* targets append their results to bench/results.jsonl; bench-unseen to bench/unseen.jsonl.

bench-startup: $(READY)  ## Measure the CPU time of `import rowcast` and `rowcast --help`
	@$(PY) bench/startup.py $(ARGS)

bench-serve: $(READY)  ## Compare the server with a JSON echo server and plain FastAPI
	@scripts/system-packages.sh bench
	@$(PY) bench/serve.py $(ARGS)

bench-processes: $(READY)  ## Compare two server processes with one, and track memory use over two million requests
	@scripts/system-packages.sh bench
	@$(PY) bench/processes.py $(ARGS)

bench-redis: $(READY)  ## Compare cache hits through Redis with cache hits in memory, and measure outages of Redis
	@scripts/system-packages.sh test
	@PYTHONPATH=tests $(PY) bench/shared_cache.py $(ARGS)

bench-queue: $(READY)  ## Compare predictions through the queue with direct predictions and with a list of single rows
	@scripts/system-packages.sh bench
	@PYTHONPATH=tests $(PY) bench/queue_service.py $(ARGS)

fuzz: $(READY)  ## Test the server with malformed requests, zip bombs, slow bodies and idle connections
	@$(PY) bench/fuzz.py $(ARGS)

bench-batch: $(READY)  ## Score a table of a million rows and compare the throughput with ONNX Runtime's
	@$(PY) bench/batch.py $(ARGS)

bench-jobs: $(READY)  ## Score a million rows as a job, and compare the speed with that of `rowcast predict`
	@$(PY) bench/jobs.py $(ARGS)

bench-unseen: $(READY)  ## Compare Rowcast with AutoGluon and FLAML on tables that were not used in development (hours)
	@$(PY) bench/unseen_tables.py list >/dev/null
	@$(PY) bench/unseen.py run $(ARGS)
	@$(PY) bench/unseen.py page

bench-unseen-tables: $(READY)  ## List the tables that bench-unseen can draw, and the excluded tables with the reasons
	@$(PY) bench/unseen_tables.py list $(ARGS)

bench-hard: $(READY)  ## Train on generated tables for which a time limit is hard to meet
	@$(PY) bench/hard_tables.py $(ARGS)

bench-check: $(READY)  ## Profile a table of a million rows and 50 columns, and compare the time and memory with their limits
	@$(PY) bench/check.py $(ARGS)

bench-store: $(READY)  ## Index predictions into PostgreSQL with fsync=on, then list and look up entries among 5 million
	@scripts/system-packages.sh test
	@PYTHONPATH=tests $(PY) bench/store.py $(ARGS)

bench-dialects: $(READY)  ## Compare V2 binary tensors with native JSON at 1,000 rows per request
	@$(PY) bench/dialects.py $(ARGS)

fuzz-tensors: $(READY)  ## Send 100,000 randomly altered binary tensors; each must be rejected or decoded as V2 specifies
	@PYTHONPATH=tests $(PY) bench/fuzz_tensors.py $(ARGS)

fuzz-onnx: $(READY)  ## Inspect 500,000 randomly altered ONNX files; each must be refused or read as the official parser reads it
	@PYTHONPATH=tests $(PY) bench/fuzz_onnx.py $(ARGS)

mutants: $(READY)  ## Change the code in 400 places, one at a time, and count the changes that no test notices
	@scripts/system-packages.sh test
	@$(PY) bench/mutants.py $(ARGS)

check-security: $(READY)  ## Attack a server and its files, and use the commands as a new user would
	@$(PY) bench/security.py $(ARGS)

drill: $(READY)  ## Test two server processes under load while processes are killed and models change
	@$(PY) bench/drill.py $(ARGS)

drill-history: $(READY)  ## Test the history with full disks, clock jumps, a locked store and a damaged journal (requires root)
	@$(PY) bench/drill_history.py $(ARGS)

drill-jobs: $(READY)  ## Kill the runner of jobs at 20 random moments, and check the results and the history
	@$(PY) bench/drill_jobs.py $(ARGS)

drill-services: $(READY)  ## Kill and pause an API, a worker, Redis and PostgreSQL, cut connections, and restart behind NGINX
	@scripts/system-packages.sh drill
	@PYTHONPATH=tests $(PY) bench/drill_services.py $(ARGS)

measured: $(READY)  ## Generate docs/reference/measured.md from bench/results.jsonl
	@$(PY) bench/page.py

clean:  ## Remove the virtual environments, caches and build output
	rm -rf .venv .venv-clients-* .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage .coverage.* build dist
	find src tests bench scripts examples -name __pycache__ -type d -prune -exec rm -rf {} +
