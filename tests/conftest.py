import logging
import os
from contextlib import closing

import pytest
import torch
from accelerate.state import AcceleratorState
from transformers import BertTokenizerFast
from transformers.utils import logging as transformers_logging

from tests.helpers.forks import Forks
from tests.helpers.garbage import frozen
from tests.helpers.models import VOCABULARY, sentences, tiny, write_tsv

FAST_FAMILIES = ("bert", "deberta-v2")
"""Families that `--fast` keeps: the plainest, and one with relative positions."""
HEAVIEST = ("test_two_processes.py", "test_runner.py", "test_scale_out.py", "test_processes.py", "test_teachers.py")
"""Files that begin, since a worker takes a file as one piece: at the end the other one would wait for it."""

# Else the import of openvino would send usage data to its makers, and tests have no network.
os.environ["CI"] = "true"
# Tiny models gain nothing by more, and threads that wait for each other lose much beside other work.
torch.set_num_threads(1)
os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}  # of the processes that tests start
# transformers 5 shows one for each checkpoint that is read or written, on the stderr that tests read.
transformers_logging.disable_progress_bar()


def pytest_addoption(parser):
    parser.addoption("--two-families", action="store_true", help="two families instead of twelve")
    parser.addoption("--fast", action="store_true", help="two families instead of twelve, and none of the long tests")


def pytest_collection_modifyitems(config, items):
    items.sort(key=lambda item: item.path.name not in HEAVIEST)
    fast, few = config.getoption("--fast"), config.getoption("--two-families")
    kept, left = [], []
    for item in items:
        family = getattr(item, "callspec", None) and item.callspec.params.get("family")
        other = (fast or few) and family not in (None, *FAST_FAMILIES)
        (left if other or (fast and item.get_closest_marker("long")) else kept).append(item)
    items[:] = kept
    if left:
        config.hook.pytest_deselected(items=left)


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    with frozen():
        return (yield)


@pytest.fixture(autouse=True)
def no_precision_left_over():
    """TrainingArguments leaves its mixed precision in the environment, where the next one in the process finds it."""
    yield
    os.environ.pop("ACCELERATE_MIXED_PRECISION", None)
    AcceleratorState._reset_state()


@pytest.fixture(autouse=True)
def no_handler_left_over():
    """The command line logs to the terminal, as it would in a process of its own; the next test must not."""
    yield
    for name in ("edgemin_hf.recipe", "edgemin_hf.sensitivity"):
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).setLevel(logging.NOTSET)


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY))
    return BertTokenizerFast(str(folder / "vocab.txt"), model_max_length=64)


@pytest.fixture(scope="session")
def forks():
    """Runs modules in processes of their own, which need not import everything first."""
    with closing(Forks()) as forks:
        yield forks


@pytest.fixture(scope="session")
def workplace(tmp_path_factory, tokenizer):
    """A folder with a tiny teacher, its tokenizer and data, as a recipe names them."""
    root = tmp_path_factory.mktemp("workplace")
    model = tiny(num_labels=2)
    model.save_pretrained(root / "teacher")
    tokenizer.save_pretrained(root / "teacher")
    write_tsv(root / "train.tsv", sentences(160))
    write_tsv(root / "test.tsv", sentences(40, seed=1))
    return root


@pytest.fixture
def place(workplace, tmp_path):
    """A folder of its own that sees the shared teacher and data."""
    for path in workplace.iterdir():
        (tmp_path / path.name).symlink_to(path)
    return tmp_path
