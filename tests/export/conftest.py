from functools import cache

import pytest

from edgemin_hf.export.onnx_graph import write_graph
from edgemin_hf.quantization.integer import plain_copy
from tests.helpers.models import tiny


@pytest.fixture(scope="session")
def float_graph(tmp_path_factory):
    """A tiny model of a family and the file of its graph in full precision; each family is exported once."""
    folder = tmp_path_factory.mktemp("float_graphs")

    @cache
    def written(family):
        model, path = tiny(family), folder / family / "onnx/model.onnx"
        path.parent.parent.mkdir()
        write_graph(plain_copy(model), path)
        return model, path

    return written
