# Two commands matter: `make demo` and `make test`. The rest keeps the house in order.
.DEFAULT_GOAL := help
.PHONY: help setup torch demo test check format docs lock vendor bench-serve bench-batch bench-workers bench-dialects \
	fuzz fuzz-tensors drill drill-history measured clean

PY := .venv/bin/python
READY := .venv/.ready

help:  ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: $(READY)  ## Virtual environment in .venv with pinned, hashed dependencies

$(READY): requirements/lock.txt pyproject.toml
	@scripts/setup.sh
	@touch $@

torch: $(READY)  ## PyTorch for the candidate mlp, where a wheel for the CPU is offered; elsewhere it may bring CUDA
	@scripts/torch.sh

demo: $(READY)  ## Train the loan example and serve it on http://127.0.0.1:8000
	@scripts/demo.sh

test: $(READY)  ## Every test; installs the system packages they need where it can
	@scripts/system-packages.sh test
	@scripts/torch.sh offered
	@scripts/clients.sh
	@$(PY) -m pytest --numprocesses auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder $(ARGS)

check: $(READY)  ## Format, lint, types, floors, and what the tree itself must hold
	@$(PY) -m ruff format --check --quiet --output-format=concise
	@$(PY) -m ruff check --quiet
	@$(PY) -m mypy
	@.venv/bin/lint-imports
	@$(PY) scripts/check_tree.py

format: $(READY)  ## Let ruff mend what it can
	@$(PY) -m ruff format --quiet
	@$(PY) -m ruff check --fix --quiet

docs: $(READY)  ## Write the reference pages that are made from the program
	@$(PY) scripts/docs.py

lock: $(READY)  ## Pin all dependencies anew; ARGS=--upgrade takes newer versions
	@scripts/lock.sh $(ARGS)

vendor:  ## Fetch the page assets named in vendor.json and check their digests
	@python3 scripts/vendor.py $(ARGS)

bench-serve: $(READY)  ## Rowcast against the floor and plain FastAPI; appends to bench/results.jsonl
	@scripts/system-packages.sh bench
	@$(PY) bench/serve.py $(ARGS)

bench-workers: $(READY)  ## Two workers against one, and memory over two million requests; appends to bench/results.jsonl
	@scripts/system-packages.sh bench
	@$(PY) bench/workers.py $(ARGS)

fuzz: $(READY)  ## Nonsense, bombs, slow senders and idle connections; appends to bench/results.jsonl
	@$(PY) bench/fuzz.py $(ARGS)

bench-batch: $(READY)  ## A million rows from disk to disk against bare ONNX Runtime; appends to bench/results.jsonl
	@$(PY) bench/batch.py $(ARGS)

bench-dialects: $(READY)  ## V2 binary tensors against native JSON, 1,000 rows a request; appends to bench/results.jsonl
	@$(PY) bench/dialects.py $(ARGS)

fuzz-tensors: $(READY)  ## 100,000 binary tensors made wrong, each read as the book has it or refused; appends to bench/results.jsonl
	@PYTHONPATH=tests $(PY) bench/fuzz_tensors.py $(ARGS)

drill: $(READY)  ## Kill, reload and stop a server with two workers under load; appends to bench/results.jsonl
	@$(PY) bench/drill.py $(ARGS)

drill-history: $(READY)  ## Full and failing disks, a jumping clock, a locked store, a damaged journal; wants root for its disks
	@$(PY) bench/drill_history.py $(ARGS)

measured: $(READY)  ## Write docs/reference/measured.md from bench/results.jsonl
	@$(PY) bench/page.py

clean:  ## Remove the environment, caches and build output
	rm -rf .venv .venv-clients-* .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage .coverage.* build dist
	find src tests bench scripts examples -name __pycache__ -type d -prune -exec rm -rf {} +
