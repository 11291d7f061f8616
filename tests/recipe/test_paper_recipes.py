import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from pyarrow import parquet
from transformers import BertConfig, RobertaConfig, XLMRobertaConfig

from tests.helpers.hub_server import HubServer, Repo

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "recipes").glob("minilmv2-*.yaml"))
LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
TEACHERS = {
    "google-bert/bert-base-uncased": BertConfig(architectures=["BertForMaskedLM"]),
    "google-bert/bert-large-uncased": BertConfig(architectures=["BertForMaskedLM"], **LARGE),
    "FacebookAI/roberta-large": RobertaConfig(vocab_size=50265, max_position_embeddings=514, **LARGE),
    "FacebookAI/xlm-roberta-large": XLMRobertaConfig(vocab_size=250002, max_position_embeddings=514, **LARGE),
}
DATASETS = {"wikimedia/wikipedia": "20231101.en", "allenai/c4": "multilingual"}
PLAN = """
import sys
from edgemin_hf.cli import main
for recipe in sys.argv[1:]:
    print("recipe", recipe, flush=True)
    assert main(["run", recipe, "--dry-run"]) == 0
"""


@pytest.fixture(scope="module")
def plans(tmp_path_factory, tokenizer):
    """What `edgemin run --dry-run` prints of each recipe, where the Hub serves configurations but no weights."""
    folder = tmp_path_factory.mktemp("hub")
    tokenizer.save_pretrained(folder)
    shared = {file.name: file.read_bytes() for file in folder.iterdir()}
    parquet.write_table(pa.table({"text": ["a document", "another one"]}), folder / "train.parquet")
    with HubServer("token") as hub:
        for name, config in TEACHERS.items():
            hub.repos[name] = Repo(files={**shared, "config.json": config.to_json_string().encode()})
        for name, config in DATASETS.items():
            card = yaml.safe_dump({"configs": [{"config_name": config, "data_files": "train.parquet"}]})
            files = {
                "README.md": f"---\n{card}---\n".encode(),
                "train.parquet": (folder / "train.parquet").read_bytes(),
            }
            hub.repos[name] = Repo(files=files)
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        settings = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(folder / "hf"), "NO_PROXY": "*"}
        done = subprocess.run(
            [sys.executable, "-c", PLAN, *map(str, RECIPES)], env={**inherited, **settings, "PYTHONPATH": str(ROOT)},
            cwd=folder, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    parts = re.split(r"^recipe (\S+)\n", done.stdout, flags=re.MULTILINE)[1:]
    assert not (folder / "runs").exists(), "a dry run writes nothing"
    return {Path(path).stem: text for path, text in zip(parts[::2], parts[1::2], strict=True)}


@pytest.mark.long
@pytest.mark.parametrize("recipe", [path.stem for path in RECIPES])
def test_dry_run_tells_stages_sizes_operations_and_time(plans, recipe):
    settings = yaml.safe_load((ROOT / "recipes" / f"{recipe}.yaml").read_text())
    teacher, student, stage = TEACHERS[settings["teacher"]["model"]], settings["student"], settings["stages"][0]
    header, row, _, *_ = plans[recipe].splitlines()
    assert header.split()[:2] == ["stage", "state"]
    assert row.startswith("distill")
    depth = student["num_hidden_layers"]
    assert f"{depth}x384/12/1536" in row
    parameters, examples, pflop, days = (float(part.replace(",", "")) for part in row.split()[4:8])
    # Words, positions (and types), twelve matrices' worth of layers with biases and norms, a pooler.
    positions = teacher.max_position_embeddings + teacher.type_vocab_size + 2
    expected = (teacher.vocab_size + positions) * 384 + depth * (12 * 384**2 + 13 * 384) + 384**2 + 384
    assert parameters == pytest.approx(expected / 1e6, abs=0.06)
    assert examples == 400_000 * 32
    per_token = 2 * 12 * (3 * depth * 384**2 + stage["teacher_layer"] * teacher.hidden_size**2)
    assert pflop == pytest.approx(examples * 512 * per_token / 1e15, rel=0.01)
    assert days > 3
    assert row.split()[8] == "days"


def test_recipes_have_the_published_settings():
    assert len(RECIPES) == 5
    for path in RECIPES:
        (stage,) = yaml.safe_load(path.read_text())["stages"]
        expected = {"learning_rate": "6e-4", "warmup_steps": 4000, "max_steps": 400000, "adam_beta2": 0.999}
        assert {name: stage[name] for name in expected} == expected
        teacher = path.stem.split("-from-")[1]
        layer, heads = {"bert-base": (12, 48), "bert-large": (21, 64)}.get(teacher, (19, 64))
        assert (stage["teacher_layer"], stage["relation_heads"]) == (layer, heads)


@pytest.mark.parametrize("path", sorted((ROOT / "recipes/accelerate").glob("*.yaml")), ids=lambda path: path.stem)
def test_accelerate_configurations_load(path):
    config = load_config_from_file(str(path))
    assert config.num_processes == {"one": 1, "two": 2, "eig": 8}[path.stem[:3]]
    assert config.use_cpu == ("cpu" in path.stem)
    assert json.dumps(config.to_dict(), default=str)
