import json

import pytest

from edgemin_hf import EdgeminConfig, QuantizationConfig, __version__


def test_the_file_comes_back_and_tells_the_last_quantisation(tmp_path):
    plain = {"distillation": [{"method": "pkd"}], "pruning": {"head_sparsity": 0.5}, "quantization": None}
    grids = [{**plain, "quantization": QuantizationConfig(weights=weights).to_dict()} for weights in ("int8", "int4")]
    made = EdgeminConfig(trainings=[plain, *grids, plain])
    made.save_pretrained(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["edgemin_config.json"]
    found = EdgeminConfig.from_pretrained(tmp_path)
    assert found == made
    assert found.edgemin_version == __version__
    assert found.quantization["weights"] == "int4"
    assert EdgeminConfig(trainings=[plain]).quantization is None


def test_a_folder_without_the_file_or_with_another_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"expected edgemin_config\.json"):
        EdgeminConfig.from_pretrained(tmp_path)
    (tmp_path / "edgemin_config.json").write_text(json.dumps({"trainings": [], "colour": "red"}))
    with pytest.raises(ValueError, match="colour: red; allowed: edgemin_version, trainings"):
        EdgeminConfig.from_pretrained(tmp_path)
