import importlib
import subprocess
import sys

import pytest

from edgemin_hf.utils.old_paths import MOVED

PUBLIC = {
    "edgemin_hf.augmentation": ["AugmentationConfig", "augment_texts"],
    "edgemin_hf.benchmark.report": ["render_report"],
    "edgemin_hf.corpus": ["TokenBlocks", "token_stream"],
    "edgemin_hf.loading": ["load_pruned"],
    "edgemin_hf.metrics": ["measure"],
    "edgemin_hf.quantization.sensitivity": ["quantization_sensitivity"],
    "edgemin_hf.raw_text": ["HubText", "TextFiles"],
    "edgemin_hf.student": ["create_student", "student_from_checkpoint"],
    "edgemin_hf.trainer": ["DistillationTrainer"],
}


@pytest.fixture
def not_yet_imported():
    for old in MOVED:
        sys.modules.pop(old, None)
    yield
    for old in MOVED:
        sys.modules.pop(old, None)


@pytest.mark.usefixtures("not_yet_imported")
@pytest.mark.parametrize(("old", "new"), MOVED.items())
def test_an_old_path_gives_the_module_itself_and_tells_its_new_path(old, new):
    with pytest.warns(DeprecationWarning, match=f"^{old} is now {new};"):
        module = importlib.import_module(old)
    assert module is importlib.import_module(new)
    assert module.__spec__.name == module.__name__ == new
    for name in PUBLIC[old]:
        assert getattr(module, name) is not None


@pytest.mark.long
def test_the_warning_is_shown_to_who_imports():
    code = "from edgemin_hf.metrics import measure"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "<string>:1: DeprecationWarning: edgemin_hf.metrics is now edgemin_hf.tasks.metrics" in done.stderr


def test_names_that_became_packages_keep_their_names():
    from edgemin_hf.sensitivity import run_sensitivity
    from edgemin_hf.tasks import TextClassification

    assert TextClassification.__module__ == "edgemin_hf.tasks.text_classification"
    assert run_sensitivity.__module__ == "edgemin_hf.sensitivity.run"


def test_what_never_was_is_not_found():
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("edgemin_hf.never_was")
