import json

import pytest

from edgemin_hf import (
    DistilBERTConfig,
    MiniLMConfig,
    MiniLMv2Config,
    MLKDConfig,
    MLKDTaskConfig,
    PKDConfig,
    PruningConfig,
    QuantizationConfig,
    TaskDistillationConfig,
    TinyBERTConfig,
    Weighted,
)
from edgemin_hf.quantization import ReconstructionConfig

CONFIGS = [
    MiniLMv2Config(teacher_layer=2, relations=("qk", "vv"), weights=(1.0, 2.0)),
    MiniLMConfig(value_weight=0.5),
    DistilBERTConfig(masked_only=True),
    TinyBERTConfig(layers=(1, 2)),
    PKDConfig(strategy="last", layers=(1,)),
    MLKDConfig(splits=2),
    MLKDTaskConfig(contrast_temperature=0.1),
    TaskDistillationConfig(temperature=4.0),
    Weighted(PKDConfig(layers=(1, 3)), 0.5),
    PruningConfig(target_parameters=1000, scope="model"),
    QuantizationConfig(overrides={"classifier": "fp32"}, reduce_range=False),
    ReconstructionConfig(modules=2),
]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: type(config).__name__)
def test_settings_come_back_from_json_as_they_were(config):
    assert type(config).from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: type(config).__name__)
def test_unknown_settings_are_refused_by_name(config):
    first = next(name for name in config.to_dict() if name != "method")
    with pytest.raises(ValueError, match=f"^no_such: 3; allowed: .*{first}"):
        type(config).from_dict({**config.to_dict(), "no_such": 3})


def test_what_is_left_out_takes_its_default_and_values_are_checked():
    assert PruningConfig.from_dict({"head_sparsity": 0.5}) == PruningConfig(0.5)
    with pytest.raises(ValueError, match="head_sparsity: 2"):
        PruningConfig.from_dict({"head_sparsity": 2})
    with pytest.raises(ValueError, match=r"method: no_such; allowed: minilm, .*task"):
        Weighted.from_dict({"config": {"method": "no_such"}, "weight": 1.0})
    with pytest.raises(ValueError, match="config: None, weight: 1; expected"):
        Weighted.from_dict({"weight": 1})
