PYTHON ?= python3.11
# The set of packages: the owner's, or `make test STACK=transformers5`, which has no Optimum and no Neural Compressor.
STACK ?=
VENV ?= .venv$(STACK:%=-%)
# Another package index for torch alone, e.g. one that serves CPU-only or CUDA builds: make quickstart TORCH_INDEX=https://...
TORCH_INDEX ?=
# What `make clients` asks.
ARTEFACT ?= runs/quickstart/artefact

BIN := $(VENV)/bin
# A process a core; a file's tests stay together, since they share what they train. Files in the order of tests/conftest.py.
PYTEST := python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder
CONSTRAINTS := constraints$(STACK:%=-%).txt
PIP := $(BIN)/python -m pip install --constraint $(CONSTRAINTS)
# What only the owner's packages go with: Optimum's classes and Neural Compressor.
OWNERS := $(if $(STACK),,$(VENV)/.installed-optimum $(VENV)/.installed-inc)
# model2vec, which distils static embeddings, wants transformers below 5.4.
RIVALS := $(if $(STACK),,$(VENV)/.installed-rivals)

# Every module, the Trainer, a recipe from end to end, and the refusals by name: what an import in the wrong place would break.
CORE_TESTS := tests/neural_compressor tests/training/test_trainer.py tests/recipe/test_schema.py \
	tests/recipe/stages/test_quantize.py tests/export/test_onnx.py tests/report/test_card.py \
	tests/recipe/test_runner.py::test_the_artefact_is_complete

# Every module, the Trainer with its resumption, graphs of all families, checkpoints, a recipe from end to end, and what
# goes wrong on transformers 5 without a word: masks, precision, pruned attention, cut tokenizers, fused attention.
STACK_TESTS := tests/neural_compressor/test_without.py tests/runtime --ignore tests/runtime/test_wheel.py \
	tests/training/test_trainer.py tests/training/test_teacher.py tests/training/test_rows.py tests/data/test_masking.py \
	tests/tasks/test_masked_lm.py tests/modeling tests/export/test_fused_attention.py \
	tests/export/test_onnx.py tests/pruning/test_vocabulary.py tests/recipe/test_models.py \
	tests/recipe/test_runner.py::test_the_artefact_is_complete

.DEFAULT_GOAL := help
.PHONY: help install quickstart test test-fast test-transformers5 test-stack test-core test-openvino test-oldest test-slow clients clients-js lint type format docs bench clean

help:  ## List the commands
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)
	$(if $(TORCH_INDEX),$(PIP) --index-url $(TORCH_INDEX) torch)

# One stamp for each set of extras: installed again when the metadata or the pinned set changes.
$(VENV)/.installed-%: setup.cfg pyproject.toml $(CONSTRAINTS) | $(VENV)/bin/python
	$(PIP) setuptools
	$(PIP) --editable '.[$*]'
	$(BIN)/python -m pip check
	touch $@

install: $(VENV)/.installed-quickstart $(OWNERS) $(RIVALS)  ## Make .venv and install the package with its pinned dependencies

# The rival that the second set of packages can't make, which the recipe names.
ON_5 := --set 'rivals.rivals=[bag_of_words]'

quickstart: install  ## From a real teacher to a measured edge model and its edition for one domain (about an hour on two cores)
	$(BIN)/edgemin run recipes/quickstart.yaml
	$(BIN)/edgemin run recipes/quickstart-domain.yaml $(if $(STACK),$(ON_5))

test: $(VENV)/.installed-test $(OWNERS) $(if $(STACK),,lint type)  ## Lint, types and tests (no network, no GPU)
	$(BIN)/$(PYTEST)

test-fast: $(VENV)/.installed-test $(OWNERS)  ## The tests of the daily loop: two families, no long ones (6 minutes on two free cores)
	$(BIN)/$(PYTEST) --fast

test-transformers5:  ## The tests that what differs in transformers 5 would break, on it, in a .venv of its own
	$(MAKE) STACK=transformers5 VENV=$(VENV)-transformers5 test-stack

test-stack: $(VENV)/.installed-test
	$(BIN)/$(PYTEST) $(STACK_TESTS)

# Hard links to the same packages, of which those of extras are taken out: nothing is downloaded, and .venv keeps them.
test-core: $(VENV)/.installed-test $(OWNERS)  ## The tests of what needs no Optimum and no Neural Compressor, without them
	rm -rf $(VENV)-core
	cp -al $(VENV) $(VENV)-core
	$(VENV)-core/bin/python -m pip uninstall --yes neural-compressor optimum optimum-intel optimum-onnx
	! $(VENV)-core/bin/python -c 'import neural_compressor' 2>/dev/null
	! $(VENV)-core/bin/python -c 'import optimum.onnxruntime' 2>/dev/null
	$(VENV)-core/bin/$(PYTEST) --two-families $(CORE_TESTS)

# Likewise, with OpenVINO added: in one process with all other tests it ended in a segmentation fault (docs/experiments.md).
test-openvino: $(VENV)/.installed-test $(OWNERS)  ## The tests of what runs in OpenVINO
	rm -rf $(VENV)-openvino
	cp -al $(VENV) $(VENV)-openvino
	$(VENV)-openvino/bin/python -m pip install --constraint constraints.txt 'openvino>=2025.4' nncf sentence-transformers \
		--requirement examples/requirements.txt
	CI=true $(VENV)-openvino/bin/python -m pytest tests/benchmark/test_openvino.py tests/export/test_derived.py tests/rivals/test_openvino.py tests/report/test_card.py
	CI=true $(VENV)-openvino/bin/python -m pytest tests/runtime/test_clients.py

# The oldest ONNX Runtime that the manifests of artefacts claim, in an environment with nothing else.
test-oldest: $(VENV)/.installed-test $(OWNERS)  ## The tests of graphs in the oldest ONNX Runtime that they claim
	$(PYTHON) -m venv $(VENV)-oldest
	$(VENV)-oldest/bin/python -m pip install 'onnxruntime==1.17.*' 'numpy<2'
	OLDEST_ONNXRUNTIME=$(VENV)-oldest/bin/python $(BIN)/$(PYTEST) tests/export/test_oldest_runtime.py

# With what each client needs, in a .venv of its own; it says which are left out, and compares the rest with the runtime.
clients: clients-js  ## Ask every client for ARTEFACT's answers, and compare them with the runtime's (clients-js needs Node, npm and Chromium)
	rm -rf $(VENV)-clients
	cp -al $(VENV) $(VENV)-clients
	$(VENV)-clients/bin/python -m pip install --constraint constraints.txt 'openvino>=2025.4' nncf --requirement examples/requirements.txt
	CI=true PYTHONPATH=. $(VENV)-clients/bin/python -m clients.python.agree $(ARTEFACT)

test-slow: $(VENV)/.installed-quickstart $(VENV)/.installed-test  ## The longer checks on real models and data
	$(BIN)/python -m pytest -m slow

lint: $(VENV)/.installed-test  ## Check style and formatting (ruff)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

type: $(VENV)/.installed-test  ## Check the types of the package (mypy)
	$(BIN)/mypy

format: $(VENV)/.installed-test  ## Rewrite the code in the house style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# As of test-core: hard links, with mkdocs added, since pages are made of the code.
$(VENV)-docs/.installed: setup.cfg pyproject.toml constraints.txt | $(VENV)/.installed-train
	rm -rf $(VENV)-docs
	cp -al $(VENV) $(VENV)-docs
	$(VENV)-docs/bin/python -m pip install --constraint constraints.txt --editable '.[docs]'
	touch $@

# The variable silences a note on mkdocs-material's successor.
docs: $(VENV)-docs/.installed  ## Build the documentation into site/ (`python -m http.server --directory site` shows it)
	NO_MKDOCS_2_WARNING=1 $(VENV)-docs/bin/python -m mkdocs build

# bertdistiller is measured beside ours; it lies apart, since its pins are older than this package's.
$(VENV)/peers: | $(VENV)/bin/python
	$(BIN)/python -m pip install --no-deps --target $@ bertdistiller==0.1.2

# Node, npm and Chromium are the machine's own.
clients-js: install $(VENV)/.installed-test
	cd clients/js && npm install --ignore-scripts --no-audit --no-fund --no-package-lock
	PYTHONPATH=. $(BIN)/python clients/js/expected.py $(ARTEFACT) --texts recipes/data/banking77/test.tsv --output runs/clients
	node clients/js/node.js transformers-3 runs/clients onnx/model_quantized.onnx
	node clients/js/node.js transformers-4 runs/clients onnx/model_quantized.onnx
	node clients/js/browser.js runs/clients $(BIN)/edgemin

bench: install $(VENV)/.installed-openvino $(VENV)/peers  ## Measure everything: the quickstart's artefact, the relation loss, pruning, quantisation, raw text (JSON in runs/bench)
	mkdir -p runs/bench
	$(BIN)/edgemin benchmark runs/quickstart/artefact --teacher runs/quickstart/teacher --output runs/bench/artefact.json
	$(BIN)/python benchmarks/runtime.py runs/quickstart/artefact --texts recipes/data/banking77/test.tsv --output runs/bench/runtime.json
	$(BIN)/python benchmarks/relation_loss.py --output runs/bench/relation_loss.json
	$(BIN)/python benchmarks/relation_memory.py --output runs/bench/relation_memory.json
	$(BIN)/python benchmarks/minilmv2_peer.py --peer $(VENV)/peers --output runs/bench/minilmv2_peer.json
	$(BIN)/python benchmarks/pruning_speed.py --output runs/bench/pruning_speed.json
	CI=true $(BIN)/python benchmarks/quantization_speed.py --openvino --output runs/bench/quantization_speed.json
	$(BIN)/python benchmarks/corpus_memory.py --output runs/bench/corpus_memory.json

clean:  ## Remove .venv and caches, never runs/
	rm -rf $(VENV) $(VENV)-clients $(VENV)-core $(VENV)-docs $(VENV)-oldest $(VENV)-openvino $(VENV)-transformers5 .mypy_cache .pytest_cache .ruff_cache build site *.egg-info
