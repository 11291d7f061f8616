import copy
import json
import re
import shutil
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from transformers import BertConfig, GPT2Config, PreTrainedModel

from edgemin_hf.cli import main
from edgemin_hf.modeling.encoder import Encoder
from edgemin_hf.modeling.loading import load_pruned
from edgemin_hf.modeling.surgery import Selection, remove, remove_layers
from edgemin_hf.pruning.saliency import Saliency, random_saliency
from edgemin_hf.sensitivity import kept
from edgemin_hf.sensitivity.figures import draw_heat_map, draw_sensitivity_curves, points
from edgemin_hf.sensitivity.page import module_table, rankings, render_page, summary
from edgemin_hf.sensitivity.pruning import Cut, cuts_of, kinds_of, predict_with_cuts
from edgemin_hf.sensitivity.quantization_figure import draw_modules, short_name
from edgemin_hf.sensitivity.records import SensitivityRecord
from edgemin_hf.sensitivity.settings import FILES
from edgemin_hf.tasks.run_rows import write_rows
from edgemin_hf.tasks.text_classification import TextClassification
from edgemin_hf.utils.hardware import environment
from tests.helpers.figures import boxes
from tests.helpers.models import FAMILIES, LABELS, batch, sentences, tiny, write_tsv

BATCHES = [batch(), batch((5, 12), seed=1)]


def logits(model, inputs=BATCHES):
    with torch.no_grad():
        return np.concatenate([model(**one).logits.numpy() for one in inputs])


def measured(model, saliency, cuts, inputs=BATCHES):
    return predict_with_cuts(model, saliency, cuts, inputs, lambda one: model(**one).logits.numpy())


def close(ours, theirs):
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def best(scores, sparsity):
    """The units that stay, by plain sorting."""
    count = round(len(scores) * (1 - sparsity))
    return sorted(np.argsort(-scores.numpy(), kind="stable")[:count].tolist())


@pytest.mark.parametrize("family", FAMILIES)
def test_each_cut_gives_the_logits_of_the_cut_model(family):
    model = tiny(family)
    saliency = random_saliency(model, 3)
    cuts = cuts_of(model, [0.5, 0.75])
    whole, found = measured(model, saliency, cuts)
    close(whole, logits(model))
    kinds = kinds_of(model.config)
    assert kinds == (["heads", "neurons"] if family in ("albert", "modernbert") else ["heads", "neurons", "layers"])
    blocks = len(Encoder(model).blocks)
    assert len(cuts) == 2 * 2 * (blocks + 1) + blocks * ("layers" in kinds)
    for cut in cuts:
        smaller = copy.deepcopy(model)
        if cut.kind == "layers":
            remove_layers(smaller, [layer for layer in range(blocks) if layer != cut.layer])
        else:
            everything = {"heads": [range(4)] * blocks, "neurons": [range(64)] * blocks}
            for layer in range(blocks) if cut.layer is None else [cut.layer]:
                everything[cut.kind][layer] = best(getattr(saliency, cut.kind)[layer], cut.sparsity)
            remove(smaller, Selection(**everything))
        close(found[cut], logits(smaller))
        assert np.abs(found[cut] - whole).max() > 1e-4, cut


@pytest.mark.parametrize("family", ["bert", "distilbert", "modernbert", "albert"])
@pytest.mark.parametrize("kind", ["heads", "neurons"])
def test_at_all_units_a_sublayer_adds_its_bias_alone(family, kind):
    model = tiny(family)
    cuts = [cut for cut in cuts_of(model, [1.0]) if cut.kind == kind]
    _, found = measured(model, random_saliency(model, 0), cuts)
    for cut in cuts:
        silent = copy.deepcopy(model)
        blocks = Encoder(silent).blocks
        for block in blocks if cut.layer is None else [blocks[cut.layer]]:
            (block.attention_output if kind == "heads" else block.ffn_out).weight.data.zero_()
        close(found[cut], logits(silent))


def test_nothing_masked_is_the_unpruned_model_and_the_model_stays_as_it_was():
    model = tiny().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    cuts = [cut for cut in cuts_of(model, [0.0, 0.1]) if cut.kind == "heads"]
    assert {cut.removed for cut in cuts} == {0}
    whole, found = measured(model, random_saliency(model, 0), [*cuts, *cuts_of(model, [0.5])])
    assert all(np.array_equal(found[cut], whole) for cut in cuts)
    assert model.training
    assert model.config.num_hidden_layers == 3
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    close(logits(model.eval()), whole)


def test_batches_and_their_order_change_nothing():
    model = tiny()
    saliency, cuts = random_saliency(model, 0), cuts_of(model, [0.5])
    together = measured(model, saliency, cuts, [batch((7, 4, 9))])
    rows = [{name: value[i : i + 1] for name, value in batch((7, 4, 9)).items()} for i in (2, 0, 1)]
    alone = measured(model, saliency, cuts, rows)
    wider = measured(model, saliency, cuts, [batch((7, 4, 9), pad_to=14)])
    for ours, order in ((alone, [1, 2, 0]), (wider, [0, 1, 2])):
        close(ours[0][order], together[0])
        for cut in cuts:
            close(ours[1][cut][order], together[1][cut])


def test_layers_below_a_cut_run_once_a_batch():
    model = tiny()
    calls = [0, 0, 0]
    for number, block in enumerate(Encoder(model).blocks):

        def count(_module, _args, number=number):
            calls[number] += 1

        # Not of the layer, which is called but gives back what was kept.
        block.module.intermediate.register_forward_pre_hook(count)
    cuts = [cut for cut in cuts_of(model, [0.5]) if cut.layer is not None]
    measured(model, random_saliency(model, 0), cuts, [batch()])
    # Once whole; in each layer one cut of heads, one of neurons, and the layer itself gone.
    assert calls == [1 + 2, 1 + 2 + 1 + 2, 1 + 2 + 2 + 2 + 1 + 1]


def test_fisher_exchanges_units_as_pruning_does():
    model = tiny()
    scores = random_saliency(model, 0)
    generator = torch.Generator().manual_seed(0)
    gradients = [(torch.randn(9, 4, generator=generator), torch.randn(9, 64, generator=generator)) for _ in range(3)]
    gradients[1][0][:, 0] = -gradients[1][0][:, 3]  # together they cost nothing
    scores.heads[1] = torch.tensor([9.0, 1.0, 2.0, 8.0])
    cut = next(cut for cut in cuts_of(model, [0.5]) if (cut.kind, cut.layer) == ("heads", 1))
    _, found = measured(model, Saliency(scores.heads, scores.neurons, gradients), [cut])
    smaller = copy.deepcopy(model)
    remove(smaller, Selection([range(4), [1, 2], range(4)], [range(64)] * 3))
    close(found[cut], logits(smaller))


def test_a_pruned_models_layers_are_cut_by_what_they_have():
    model = tiny()
    remove(model, Selection([range(4), [0, 2], range(4)], [range(64), range(16), range(64)]))
    found = {(cut.kind, cut.layer): (cut.removed, cut.units) for cut in cuts_of(model, [0.5])}
    assert found["heads", 1] == (1, 2)
    assert found["neurons", 1] == (8, 16)
    assert found["heads", None] == (5, 10)
    assert Cut("layers", 1, 1.0, 1, 1) in cuts_of(model, [0.5])


def save(folder, tokenizer, labels, **changes):
    names = dict(enumerate(labels))
    ids = {name: number for number, name in names.items()}
    tiny(id2label=names, label2id=ids, **changes).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@pytest.fixture(scope="module")
def place(workplace, tokenizer, tmp_path_factory):
    """The shared data with a classifier that knows its labels."""
    root = tmp_path_factory.mktemp("sensitivity")
    save(root / "classifier", tokenizer, LABELS)
    for name in ("train.tsv", "test.tsv"):
        shutil.copy(workplace / name, root / name)
    return root


@pytest.fixture(scope="module")
def arguments(place):
    root = place
    write_tsv(root / "validation.tsv", sentences(48, seed=2))
    named = {"--train": root / "train.tsv", "--data": root / "validation.tsv", "--output": root / "out"}
    few = ["--examples", "32", "--saliency-examples", "32", "--max-length", "24", "--threads", "1"]
    return ["sensitivity", str(root / "classifier"), *(str(x) for pair in named.items() for x in pair), *few]


@pytest.fixture(scope="module")
def finished(arguments):
    assert main(arguments) == 0
    return json.loads((Path(arguments[7]) / "sensitivity.json").read_text())


def test_the_command_writes_everything(finished, arguments, capsys):
    folder = Path(arguments[7])
    assert sorted(path.name for path in folder.iterdir()) == sorted(set(FILES) - {"quantization.svg"})
    assert finished["quantization"] == []
    keys = [(row["kind"], row["layer"], row["sparsity"]) for row in finished["measurements"]]
    shares = [0.25, 0.5, 0.75, 1.0]
    units = [(kind, n, s) for kind in ("heads", "neurons") for n in (1, 2, 3, None) for s in shares]
    assert keys == [*units, *(("layers", n, 1.0) for n in (1, 2, 3))]
    assert finished["base"]["n"] == 32
    for row in finished["measurements"]:
        assert row["change"] == row["value"] - finished["base"]["value"]
        assert 0 <= row["value"] <= 1
    for name in ("sensitivity.svg", "curves.svg"):
        assert ElementTree.fromstring((folder / name).read_text()).tag.endswith("svg")
    page = (folder / "sensitivity.html").read_text()
    assert page.count("<svg ") == 2
    assert "head_sparsity" in page


def test_batch_size_changes_no_number_and_old_results_are_replaced(finished, arguments, capsys):
    assert main([*arguments, "--batch-size", "5"]) == 0
    told = capsys.readouterr().out
    again = json.loads((Path(arguments[7]) / "sensitivity.json").read_text())
    assert again["measurements"] == finished["measurements"]
    assert again["base"] == finished["base"]
    for title in ("heads", "feed-forward neurons", "layer"):
        assert re.search(rf"{title} +least sensitive: layer \d .*most: layer \d", told)
    assert arguments[7] in told


def test_values_are_those_of_the_trainers_metric(finished, place, tokenizer):
    """One layer gone, evaluated row by row without any of the command's code."""
    model = load_pruned(place / "classifier").eval()
    remove_layers(model, [0, 2])
    rows = sentences(48, seed=2)
    drawn = np.random.default_rng(0).permutation(48)[:32]
    hits = []
    for text, label in (rows[i] for i in drawn):
        with torch.no_grad():
            found = model(**tokenizer(text, return_tensors="pt")).logits.argmax()
        hits.append(model.config.id2label[int(found)] == label)
    row = next(row for row in finished["measurements"] if (row["kind"], row["layer"]) == ("layers", 2))
    assert row["value"] == pytest.approx(np.mean(hits))


@pytest.mark.long
def test_modules_are_measured_beside_cuts_or_alone(finished, arguments, tmp_path, capsys):
    changed = [*arguments[:7], str(tmp_path / "out"), *arguments[8:]]
    assert main([*changed, "--measure", "quantization", "pruning"]) == 0
    both = json.loads((tmp_path / "out" / "sensitivity.json").read_text())
    assert both["measurements"] == finished["measurements"]
    assert both["base"] == finished["base"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(FILES)
    assert (tmp_path / "out" / "sensitivity.html").read_text().count("<svg ") == 3
    assert main([*changed, "--measure", "quantization", "--batch-size", "5"]) == 0
    alone = json.loads((tmp_path / "out" / "sensitivity.json").read_text())
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "quantization.svg", "sensitivity.html", "sensitivity.json",
    ]  # fmt: skip
    assert alone["measurements"] == []
    # 3 layers of 6, pooler and classifier; words and positions; at both precisions.
    assert len(alone["quantization"]) == 2 * (3 * 6 + 2 + 2)
    again = {(row["name"], row["precision"]): row for row in both["quantization"]}
    for row in alone["quantization"]:
        assert row["loss"] == pytest.approx(again[row["name"], row["precision"]]["loss"], rel=0.3, abs=3e-8)
        assert row["change"] == row["value"] - alone["base"]["value"]
        assert row["saved_bytes"]["fp32"] > 0


def test_regression_and_fisher(tmp_path, tokenizer, capsys):
    save(tmp_path / "model", tokenizer, ["score"], problem_type="regression")
    for name, seed in (("train", 0), ("data", 1)):
        write_tsv(tmp_path / f"{name}.tsv", [(text, str(len(text) % 7)) for text, _ in sentences(24, seed=seed)])
    command = ["sensitivity", str(tmp_path / "model"), "--train", str(tmp_path / "train.tsv"), "--data"]
    command += [str(tmp_path / "data.tsv"), "--output", str(tmp_path / "out"), "--metric", "spearmanr"]
    command += ["--saliency", "fisher", "--max-length", "24", "--threads", "1", "--sparsities", "0.5"]
    command += ["--measure", "pruning", "quantization"]
    assert main(command) == 0
    told = capsys.readouterr().out
    assert "Spearman correlation ×100" in told
    assert "squared difference of the scores" in told


WRONG = {
    "metric": (["--metric", "bleu"], "metric: bleu; allowed: accuracy"),
    "scores": (["--metric", "pearsonr"], "metric: pearsonr for a model of 2 label.*; allowed: accuracy, f1, "),
    "measure": (["--measure", "pruning", "speed"], "measure: pruning speed; allowed: pruning, quantization"),
    "saliency": (["--saliency", "magnitude"], "saliency: magnitude; allowed: taylor, "),
    "share": (["--sparsities", "0.5", "1.5"], "sparsities: 1.5; allowed: shares above 0 to 1"),
    "no share": (["--sparsities", "0"], "sparsities: 0; allowed: shares above 0 to 1"),
    "nan": (["--sparsities", "nan"], "sparsities: nan; allowed: "),
    "twice": (["--sparsities", "0.5", "0.5"], "sparsities: 0.5 0.5; allowed: each share once"),
    "examples": (["--examples", "-1"], "examples: -1; allowed: 0 or more"),
    "saliency examples": (["--saliency-examples", "0"], "saliency_examples: 0; allowed: 1 or more"),
    "batch": (["--batch-size", "0"], "batch_size: 0; allowed: 1 or more"),
    "threads": (["--threads", "0"], "threads: 0; allowed: 1 or more"),
    "seed": (["--seed", "-1"], "seed: -1; allowed: 0 or more"),
    "large seed": (
        ["--seed", str(2**70)],
        "seed: 1180591620717411303424; allowed: 0 to 4294967295",
    ),
    "home": (["--output", "~/out"], "output: ~/out, where ~ is a character"),
    "long": (["--max-length", "100"], "max_length: 100; allowed: 3 to 66"),
    "short": (["--max-length", "2"], "max_length: 2; allowed: 3 or more"),
    "no train": (["--train", "nowhere.tsv"], "train: .*nowhere.tsv, which is no file"),
    "no data": (["--data", "nowhere.tsv"], "data: .*nowhere.tsv, which is no file"),
    "same": (["--data", "train.tsv"], "data: .*train.tsv, which is train too; allowed: "),
    "copied": (["--data", "copy.tsv"], "data: copy.tsv, whose texts are those of train; expected: "),
    "text": (["--text-column", "body"], "train: column 'body' of .*; allowed: text, label"),
    "pair": (["--text-pair-column", "b"], "train: column 'b' of .*; allowed: text, label"),
    "label": (["--label-column", "y"], "train: column 'y' of .*; allowed: text, label"),
    "labels": (
        ["--data", "strange.tsv"],
        "data: label 'refund', .*; allowed: card_problem",
    ),
    "output": (["--output", "classifier"], "output: .*classifier, which holds something else"),
    "output file": (["--output", "train.tsv"], "output: .*train.tsv, which holds something else"),
    "output below a file": (["--output", "train.tsv/out"], "output: train.tsv/out, which can't be made in .*train.tsv"),
    "no model": ("no such model", "'no such model' is neither a Hub id"),
    "no head": ("headless", "model: .*headless, without a classification head; allowed: "),
    "no family": ("gpt2", ".*gpt2.* is not supported; allowed: bert"),
}


@pytest.mark.parametrize("case", WRONG)
def test_bad_input_is_one_line_and_exit_code_2_before_weights(case, place, tmp_path, capsys, monkeypatch):
    for name in ("train.tsv", "test.tsv", "classifier"):
        (tmp_path / name).symlink_to(place / name)
    teacher = {path.name: path.read_bytes() for path in (place / "classifier").iterdir()}
    shutil.copy(place / "train.tsv", tmp_path / "copy.tsv")
    write_tsv(tmp_path / "strange.tsv", [("where is my card", "refund")])
    write_tsv(tmp_path / "labels.tsv", sentences(8))
    for name, config in (("gpt2", GPT2Config(n_positions=66)), ("headless", BertConfig(architectures=["BertModel"]))):
        shutil.copytree(place / "classifier", tmp_path / name)
        (tmp_path / name / "config.json").write_text(config.to_json_string())
    monkeypatch.chdir(tmp_path)

    def refuse(*_args, **_kwargs):
        raise AssertionError("weights were loaded")

    monkeypatch.setattr(PreTrainedModel, "from_pretrained", refuse)
    change, message = WRONG[case]
    given = {"--train": "train.tsv", "--data": "test.tsv", "--output": "out", "--max-length": "24", "--threads": "1"}
    model, extra = (change, []) if isinstance(change, str) else ("classifier", change)
    command = ["sensitivity", model, *(part for pair in given.items() for part in pair), *extra]
    assert main(command) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    assert re.match(f"edgemin: .*{message}", lines[0]), lines[0]
    assert not (tmp_path / "out").exists()
    assert {path.name: path.read_bytes() for path in (place / "classifier").iterdir()} == teacher


def test_a_failure_leaves_the_old_result(finished, arguments, monkeypatch, capsys):
    before = {path.name: path.read_bytes() for path in Path(arguments[7]).iterdir()}

    def fail(*_args):
        raise OSError("disk full")

    monkeypatch.setattr("edgemin_hf.sensitivity.run.render_page", fail)
    assert main(arguments) == 1
    assert {path.name: path.read_bytes() for path in Path(arguments[7]).iterdir()} == before


def test_what_was_measured_before_a_kill_is_taken_up(finished, arguments, tmp_path, monkeypatch, capsys):
    command = [*arguments[:7], str(tmp_path / "out"), *arguments[8:], "--batch-size", "8"]
    counted = []

    def killed(save):
        def one(*given, **named):
            counted.append(1)
            if len(counted) == 3:
                raise KeyboardInterrupt
            return save(*given, **named)

        return one

    # The saliency and one batch are on disk when it is killed.
    with monkeypatch.context() as patched:
        patched.setattr("edgemin_hf.sensitivity.kept.save_file", killed(kept.save_file))
        assert main(command) == 130
    assert not (tmp_path / "out").exists()
    taken = []
    load = kept.load_file
    monkeypatch.setattr("edgemin_hf.sensitivity.kept.load_file", lambda file: taken.append(file.stem) or load(file))
    capsys.readouterr()
    assert main(command) == 0
    assert taken == ["saliency", "cuts-0"]
    told = capsys.readouterr().out
    assert re.search(r"About \d+\.\d min: 35 cuts and 0 modules, on 32 rows", told)
    assert "2 measurements of before are taken up" in told
    again = json.loads((tmp_path / "out/sensitivity.json").read_text())
    assert again["measurements"] == finished["measurements"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_measurements_of_something_else_are_not_taken_up(tmp_path):
    first = kept.Kept(tmp_path / "out", ["model a"])
    first.take("cuts-0", lambda: {"x": np.ones(2)})
    other = kept.Kept(tmp_path / "out", ["model b"])
    assert other.take("cuts-0", lambda: {"x": np.zeros(2)})["x"].tolist() == [0, 0]
    scores = Saliency([torch.ones(4)], [torch.rand(8)], [(torch.ones(2, 4), torch.ones(2, 8))])
    other.saliency(lambda: scores)
    again = other.saliency(lambda: None)
    assert torch.equal(again.neurons[0], scores.neurons[0])
    assert torch.equal(again.gradients[0][1], scores.gradients[0][1])


def test_a_model_of_a_run_is_measured_on_the_rows_that_chose(place, tmp_path, capsys):
    columns = {"text_column": "sentence", "label_column": "topic", "max_length": 24}
    for name in ("train", "test"):
        text = (place / f"{name}.tsv").read_text()
        (tmp_path / f"{name}.tsv").write_text(text.replace("text\tlabel", "sentence\ttopic", 1))
    task = TextClassification("train.tsv", "test.tsv", **columns)
    write_rows(task, tmp_path, 0, tmp_path / "run")
    shutil.copytree(place / "classifier", tmp_path / "run/export/student")
    command = ["sensitivity", str(tmp_path / "run/export/student"), "--output", str(tmp_path / "out")]
    assert main([*command, "--threads", "1", "--sparsities", "0.5"]) == 0
    result = json.loads((tmp_path / "out/sensitivity.json").read_text())
    assert result["base"]["n"] == 16
    assert result["settings"]["data"] == str(tmp_path / "run/rows/validation.parquet")
    assert main(["sensitivity", str(place / "classifier"), "--output", str(tmp_path / "other")]) == 2
    assert "train: missing; expected: --train FILE, or a model in the folder of a run" in capsys.readouterr().err


def test_help_explains_every_option(capsys):
    with pytest.raises(SystemExit):
        main(["sensitivity", "--help"])
    told = capsys.readouterr().out
    explained = re.findall(r"^  (--[a-z-]+)(?: [A-Z]+)?(?: \[[A-Z ]+\.\.\.\])?\s+\w.{10,}", told, re.MULTILINE)
    assert explained == re.findall("--[a-z-]+", told.partition("\n\n")[0])


def result(layers, shares, kinds=("heads", "neurons", "layers"), loss=0.3, metric="accuracy"):
    generator = np.random.default_rng(0)
    rows = []
    for kind in kinds:
        for layer in [*range(1, layers + 1), *([None] if kind != "layers" else [])]:
            for share in [1.0] if kind == "layers" else shares:
                change = float(0.01 - loss * share**2 * generator.random())
                row = {"kind": kind, "layer": layer, "sparsity": share, "removed": 1, "units": 2, "change": change}
                rows.append(row | {"value": 0.88 + change})
    base = {"metric": metric, "value": 0.88, "ci95": [0.86, 0.9], "n": 1000}
    drawn = {"base": base, "measurements": rows, "shared_layers": False, "settings": {}}
    machine = environment(1, device="cpu").to_dict()
    return drawn | {"quantization": [], "quantization_loss": "kl_divergence", "environment": machine}


def quantized(names, metric="accuracy", decades=6):
    """What stands in a result that has the modules `names`, the last of which can't be INT4 and loses nothing."""
    generator = np.random.default_rng(0)
    rows = []
    for name in names:
        for precision in ("int8", "int4"):
            row = {"name": name, "kind": "linear", "precision": precision, "value": 0.88, "change": -0.0123}
            saved = {"fp32": 3_000_000, "int4": 400_000} if precision == "int8" else {"fp32": 3.4e6, "int8": -400_000}
            loss = 10.0 ** -(1 + decades * generator.random())
            rows.append(row | {"loss": loss, "size_bytes": 1_000_000, "saved_bytes": saved})
    if len(names) > 1:
        rows[-2]["loss"] = 0.0
        del rows[-1]
    rows.sort(key=lambda row: -row["loss"])
    loss = "squared_difference" if metric == "spearmanr" else "kl_divergence"
    return {"quantization": rows, "quantization_loss": loss}


def modules_of(layers, prefix="bert.encoder.layer"):
    parts = ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense")
    parts += ("intermediate.dense", "output.dense")
    inner = [f"{prefix}.{layer}.{part}" for layer in range(layers) for part in parts]
    return ["bert.embeddings.word_embeddings", "bert.embeddings.position_embeddings", *inner, "classifier"]


@pytest.mark.long
@pytest.mark.parametrize(
    ("names", "decades"),
    [
        (modules_of(24), 11),
        (modules_of(6), 4),
        (modules_of(1, "albert.encoder.albert_layer_groups.0.albert_layers"), 0.3),
        (["classifier"], 1),
    ],
)
def test_the_bars_are_readable(names, decades):
    drawn = SensitivityRecord.from_dict(result(2, [0.5]) | quantized(names, decades=decades))
    svg = draw_modules(drawn)
    assert svg == draw_modules(drawn)
    check_texts(svg)
    shown = [text for text, *_ in boxes(svg)]
    ranked = dict.fromkeys(row.name for row in drawn.quantization)
    assert [text for text in shown if text in map(short_name, ranked)] == [short_name(name) for name in ranked]
    assert short_name("bert.encoder.layer.0.output.dense") == "layer.0.output.dense"
    assert len({short_name(name) for name in names}) == len(names)


def test_the_page_names_no_place_of_this_machine():
    content = result(2, [0.5]) | {"settings": {"train": "/home/anna/secret/train.tsv", "examples": 24}}
    page = render_page("/home/anna/secret/model/", SensitivityRecord.from_dict(content), None, None, None)
    assert "anna" not in page
    assert "Where model can be" in page
    assert "train.tsv" in page


def test_a_page_and_a_summary_of_modules_alone():
    content = result(2, [0.5], metric="spearmanr") | {"measurements": []} | quantized(modules_of(2), "spearmanr")
    drawn = SensitivityRecord.from_dict(content)
    page = render_page("my model", drawn, None, None, draw_modules(drawn))
    assert page.count("<svg ") == 1
    assert "Where my model can be quantised" in page
    assert "What a cut costs" not in page
    assert "mean KL divergence" not in page
    headers, rows = module_table(drawn)
    assert headers == [
        "module", "INT8 loss", "INT8 points", "INT4 loss", "INT4 points", "fp32 MB", "INT8 MB", "INT4 MB",
    ]  # fmt: skip
    assert [row[0] for row in rows] == list(dict.fromkeys(row.name for row in drawn.quantization))
    lost = next(row for row in rows if row[0] == "classifier")
    assert lost == ["classifier", "0.0e+00", "\N{MINUS SIGN}1.2", "—", "—", "4.0000", "1.0000", "—"]
    for row in rows:
        assert row[0] in page
    told = summary(drawn)
    assert f"INT4  most sensitive: {next(row.name for row in drawn.quantization if row.precision == 'int4')}" in told
    assert "squared difference of the scores" in told
    assert "sparsities" not in told


@pytest.mark.long
@pytest.mark.parametrize(
    ("layers", "shares", "kinds", "metric"),
    [
        (24, [0.1 * i for i in range(1, 11)], ("heads", "neurons", "layers"), "spearmanr"),
        (12, [0.25, 0.5, 0.75, 1.0], ("heads", "neurons", "layers"), "accuracy"),
        (2, [0.5], ("neurons",), "f1"),
    ],
)
def test_no_text_of_the_pictures_overlaps_or_leaves_them(layers, shares, kinds, metric):
    drawn = SensitivityRecord.from_dict(result(layers, shares, kinds, metric=metric))
    for draw in (draw_heat_map, draw_sensitivity_curves):
        svg = draw(drawn)
        assert svg == draw(drawn)
        check_texts(svg)


def check_texts(svg):
    """Every text lies inside the picture, and apart from all others."""
    _, _, width, height = map(float, ElementTree.fromstring(svg).get("viewBox").split())
    found = boxes(svg)
    for index, (text, left, right, top, bottom) in enumerate(found):
        assert left >= 0, text
        assert top >= 0, text
        assert right <= width, text
        assert bottom <= height, text
        for other, other_left, other_right, other_top, other_bottom in found[:index]:
            apart = right <= other_left or other_right <= left or bottom <= other_top or other_bottom <= top
            assert apart, (text, other)


def test_the_heat_map_shows_every_number():
    drawn = SensitivityRecord.from_dict(result(3, [0.5, 1.0]))
    svg = draw_heat_map(drawn)
    texts = [element.text for element in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]
    for row in drawn.measurements:
        assert points(row.change) in texts
    assert [points(x) for x in (0.0004, -0.0004, -0.123, 0.02)] == ["0.0", "0.0", "\N{MINUS SIGN}12.3", "+2.0"]


def test_the_ranking_is_by_the_mean_over_sparsities():
    content = result(2, [0.5, 1.0], ("heads",))
    for row, change in zip(content["measurements"], (-0.1, -0.2, 0.0, -0.4, -0.5, -0.6), strict=True):
        row["change"] = change
    drawn = SensitivityRecord.from_dict(content)
    (ranking,) = rankings(drawn)
    assert ranking.kind == "heads"
    assert list(ranking.changes) == [1, 2]
    assert ranking.changes == pytest.approx({1: -0.15, 2: -0.2})
    assert "least sensitive: layer 1 (\N{MINUS SIGN}15.0 points), most: layer 2 (\N{MINUS SIGN}20.0)" in summary(drawn)


def test_the_page_loads_nothing_and_escapes_everything():
    settings = {"model": "<script>alert(1)</script>", "sparsities": [0.5, 1.0]}
    drawn = SensitivityRecord.from_dict(result(3, [0.5]) | {"settings": settings} | quantized(["<script>.weight"]))
    page = render_page("<script>", drawn, draw_heat_map(drawn), draw_sensitivity_curves(drawn), draw_modules(drawn))
    assert "<script" not in page
    assert "0.5 1.0" in page
    assert not re.search(r"<(link|img|iframe|object|embed|base)\b|@import", page)
    assert all(target.startswith("#") for target in re.findall(r"(?:src|href)\s*=\s*[\"']?([^\"'\s>]*)", page))
