import copy
import gc
import json
from dataclasses import dataclass
from itertools import pairwise

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch.utils.data import Dataset
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from edgemin_hf import PruningConfig
from edgemin_hf.modeling.encoder import Encoder
from edgemin_hf.modeling.surgery import remove
from edgemin_hf.neural_compressor.pruning import IncPruner, save_inc_config, select_once
from edgemin_hf.pruning.gradual import PRUNING_STATE
from tests.helpers.models import batch, tiny

pytest.importorskip("neural_compressor")

STEPS = 12


@pytest.fixture(autouse=True, scope="module")
def quick_garbage_collection():
    """Trainer collects garbage when it begins, which takes longer than these trainings where much was imported."""
    gc.freeze()
    yield
    gc.unfreeze()


@dataclass
class Config(PruningConfig):
    head_sparsity: float = 0.5
    ffn_sparsity: float = 0.5
    saliency: str = "snip_momentum"
    schedule: str = "cubic"
    start: float = 0.2
    end: float = 0.8
    rounds: int = 3


class Rows(Dataset):
    def __init__(self, count=64):
        inputs = batch([9] * count)
        self.rows = [{k: v[i] for k, v in inputs.items()} | {"labels": torch.tensor(i % 3)} for i in range(count)]

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        return self.rows[index]


class StopAt(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = state.global_step == self.step


class ScoringTrainer(Trainer):
    """Calls what it prunes by, as `DistillationTrainer` does, before gradients are clipped."""

    def training_step(self, *args, **kwargs):
        loss = super().training_step(*args, **kwargs)
        for pruner in self.callback_handler.callbacks:
            if isinstance(pruner, IncPruner):
                pruner.after_backward(complete=self.accelerator.sync_gradients)
        return loss


def train(model, pruner, folder, *callbacks, resume=None, save_steps=5, **settings):
    settings = {"learning_rate": 1e-3, **settings}
    args = TrainingArguments(
        folder, max_steps=STEPS, per_device_train_batch_size=8, report_to=[], use_cpu=True,
        save_steps=save_steps, logging_steps=100, disable_tqdm=True, seed=3, **settings,
    )  # fmt: skip
    trainer = ScoringTrainer(model, args, train_dataset=Rows(), callbacks=[pruner, *callbacks])
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def reference_masks(model, selection):
    """Which weights of the layers INC should have left, by the selection alone: name -> bool, like the weight."""
    masks = {}
    for index in range(len(selection.heads)):
        heads = torch.zeros(4, dtype=torch.bool)
        heads[list(selection.heads[index])] = True
        rows = heads.repeat_interleave(8)
        for part in ("q", "k", "v"):
            masks[index, part] = rows[:, None].expand(32, 32)
        masks[index, "attention_output"] = rows[None].expand(32, 32)
        neurons = torch.zeros(64, dtype=torch.bool)
        neurons[list(selection.neurons[index])] = True
        masks[index, "ffn_out"] = neurons[None].expand(32, 64)
        masks[index, "ffn_in"] = torch.ones(64, 32, dtype=torch.bool)
    return masks


FAMILIES = ["bert", "roberta", "distilbert", "electra", "mpnet", "albert", "deberta-v2"]


@pytest.mark.parametrize("family", [*FAMILIES, "deberta", "modernbert"])
def test_the_trained_model_is_masked_as_asked_and_removal_changes_nothing(family, tmp_path):
    heads_go = family in FAMILIES  # in the others' projections they stand side by side, where INC can't tell them apart
    model = tiny(family)
    pruner = IncPruner(Config(head_sparsity=0.5 if heads_go else 0.0, ffn_sparsity=0.5))
    assert train(model, pruner, tmp_path, save_strategy="no").model is model
    model.eval()
    selection, blocks = pruner.selection(model), Encoder(model).blocks
    assert [len(heads) for heads in selection.heads] == [2 if heads_go else 4] * len(blocks)
    assert [len(neurons) for neurons in selection.neurons] == [32] * len(blocks)
    if heads_go:
        for (index, part), mask in reference_masks(model, selection).items():
            assert torch.equal(getattr(blocks[index], part).weight != 0, mask), (index, part)
    cut = copy.deepcopy(model)
    remove(cut, selection)
    for small, block, heads, neurons in zip(
        Encoder(cut).blocks, blocks, selection.heads, selection.neurons, strict=True
    ):
        for part in ("q", "k", "v") if heads_go else ():
            whole = getattr(block, part)
            assert torch.equal(getattr(small, part).weight, whole.weight.unflatten(0, (4, 8))[heads].flatten(0, 1))
            assert torch.equal(getattr(small, part).bias, whole.bias.unflatten(0, (4, 8))[heads].flatten())
        assert torch.equal(small.ffn_out.weight, block.ffn_out.weight[:, neurons])
    with torch.no_grad():
        expected, logits = model(**batch()).logits, cut(**batch()).logits
    assert (logits - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.long
@pytest.mark.parametrize(("saliency", "dropout"), [("snip_momentum", 0.0), ("snip_momentum", 0.1), ("magnitude", 0.1)])
def test_killed_and_resumed_is_uninterrupted_to_the_bit(saliency, dropout, tmp_path):
    def model():
        return tiny(hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout)

    config = Config(saliency=saliency, ffn_sparsity=0.5)
    whole, first, second = IncPruner(config), IncPruner(config), IncPruner(config)
    uninterrupted = train(model(), whole, tmp_path / "whole").model
    train(model(), first, tmp_path / "killed", StopAt(5))
    checkpoint = tmp_path / "killed" / "checkpoint-5"
    second.resume_from = checkpoint
    resumed = train(tiny(seed=9, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout),
                    second, tmp_path / "killed", resume=str(checkpoint)).model  # fmt: skip
    for name, tensor in uninterrupted.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], tensor), name
    assert second.selection(resumed) == whole.selection(uninterrupted)
    states = [load_file(tmp_path / folder / "checkpoint-12" / PRUNING_STATE) for folder in ("whole", "killed")]
    assert states[0].keys() == states[1].keys()
    assert any("scores" in name for name in states[0])
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_a_resumed_training_without_its_state_is_refused(tmp_path):
    train(tiny(), IncPruner(Config()), tmp_path, StopAt(5))
    checkpoint = tmp_path / "checkpoint-5"
    with pytest.raises(ValueError, match="resume_from: None, but training goes on from step 5"):
        train(tiny(), IncPruner(Config()), tmp_path, resume=str(checkpoint))
    other = IncPruner(Config(head_sparsity=0.25))
    other.resume_from = checkpoint
    with pytest.raises(ValueError, match="belongs to other settings"):
        train(tiny(), other, tmp_path, resume=str(checkpoint))
    (checkpoint / PRUNING_STATE).unlink()
    other.resume_from = checkpoint
    with pytest.raises(ValueError, match="does not exist"):
        train(tiny(), other, tmp_path, resume=str(checkpoint))


def begin(model, config, steps=STEPS):
    pruner = IncPruner(config)
    state = TrainerState(max_steps=steps)
    pruner.on_train_begin(TrainingArguments("unused", use_cpu=True, report_to=[]), state, TrainerControl(), model=model)
    return pruner


def without_training(model, config):
    """Go through the steps of a training that leaves the weights to the pruner: enough for magnitude."""
    pruner = begin(model, config)
    for step in range(STEPS):
        pruner.on_step_begin(None, TrainerState(global_step=step), None)
        pruner.on_optimizer_step(None, None, None)
    return pruner


class KeptAtEachStep(TrainerCallback):
    def __init__(self, pruner):
        self.pruner, self.kept = pruner, []

    def on_step_end(self, args, state, control, model, **kwargs):
        layers = Encoder(model).layers
        heads = [
            (layer.q.weight.unflatten(0, (layer.num_heads, -1)) != 0).any(2).any(1).sum().item() for layer in layers
        ]
        self.kept.append((heads, [(layer.ffn_out.weight != 0).any(0).sum().item() for layer in layers]))


@pytest.mark.parametrize(("schedule", "power"), [("cubic", 3), ("iterative", 1)])
def test_units_go_at_the_steps_and_in_the_numbers_of_the_schedule(schedule, power, tmp_path):
    pruner = IncPruner(Config(head_sparsity=0.75, ffn_sparsity=0.5, schedule=schedule))
    record = KeptAtEachStep(pruner)
    train(tiny(), pruner, tmp_path, record, save_strategy="no")
    # From step 2 to step 8, every second one; nothing goes at the first.
    for step, (heads, neurons) in enumerate(record.kept):
        done = 1 - (1 - max(0, min(step, 8) - 2) // 2 / 3) ** power
        assert heads == [4 - int(3.5 * done)] * 3, step
        assert neurons == [64 - int(32.5 * done)] * 3, step


@pytest.mark.parametrize("saliency", ["snip_momentum", "gradient"])
def test_what_is_masked_stays_masked(saliency, tmp_path):
    class Masks(TrainerCallback):
        rows = ()

        def on_step_end(self, args, state, control, model, **kwargs):
            blocks = Encoder(model).blocks
            now = torch.stack([torch.cat([(b.q.weight != 0).any(1), (b.ffn_out.weight != 0).any(0)]) for b in blocks])
            self.rows = (*self.rows, now)

    masks = Masks()
    train(tiny(), IncPruner(Config(saliency=saliency, start=0.0, rounds=8)), tmp_path, masks, save_strategy="no")
    for before, after in pairwise(masks.rows):
        assert not (after & ~before).any()
    assert masks.rows[-1].sum() == 3 * (2 * 8 + 32)


def test_nothing_to_remove_leaves_all(tmp_path):
    model, pruner = tiny(), IncPruner(Config(head_sparsity=0.0, ffn_sparsity=0.0))
    train(model, pruner, tmp_path)
    assert pruner.selection(model).heads == [[0, 1, 2, 3]] * 3


def test_one_shot_prunes_once(tmp_path):
    pruner = IncPruner(Config(schedule="one_shot", start=0.5))
    record = KeptAtEachStep(pruner)
    train(tiny(), pruner, tmp_path, record, save_strategy="no")
    assert record.kept == [([4] * 3, [64] * 3)] * 6 + [([2] * 3, [32] * 3)] * 6


@pytest.mark.parametrize("schedule", ["one_shot", "cubic", "iterative"])
@pytest.mark.parametrize(
    ("shape", "shares", "kept"),
    [
        ({"intermediate_size": 49}, (0.25, 1 / 49), (3, 48)),  # 49 * (1 / 49) is below 1
        ({"intermediate_size": 3072}, (0.75, 0.99), (1, 32)),  # above INC's own limit of 0.98
        ({"hidden_size": 36, "num_attention_heads": 12, "intermediate_size": 65}, (1 / 12, 0.3), (11, 46)),
    ],
)
def test_what_stays_is_exact_whatever_the_numbers(schedule, shape, shares, kept):
    model = tiny(**shape)
    config = Config(*shares, saliency="magnitude", schedule=schedule, rounds=5)
    if schedule == "one_shot":
        selection = select_once(model, [], torch.sum, config)
    else:
        selection = without_training(model, config).selection(model)
    assert [(len(h), len(n)) for h, n in zip(selection.heads, selection.neurons, strict=True)] == [kept] * 3


def reference_selection(model, batches, loss_of, saliency):
    """INC's documented scores, by hand in float64: means over a unit's weights, half of the units stay."""
    scores = {}
    model.zero_grad()
    for inputs in batches:
        if saliency == "snip_momentum":
            model.zero_grad()
        loss_of(inputs).backward()
        for index, layer in enumerate(Encoder(model).layers):
            for part in ("q", "k", "v", "attention_output", "ffn_out"):
                weight = getattr(layer, part).weight
                w, g = weight.detach().double(), weight.grad.double()
                if saliency == "snip_momentum":
                    scores[index, part] = 0.9 * scores.get((index, part), 0) + (w * g).abs()
                else:
                    scores[index, part] = {"gradient": g, "magnitude": w}[saliency].abs()
    heads, neurons = [], []
    for index in range(3):
        of_heads = sum(scores[index, part].unflatten(0, (4, 8)).mean((1, 2)) for part in ("q", "k", "v"))
        of_heads = of_heads + scores[index, "attention_output"].unflatten(1, (4, 8)).mean((0, 2))
        heads.append(sorted(of_heads.topk(2).indices.tolist()))
        neurons.append(sorted(scores[index, "ffn_out"].mean(0).topk(32).indices.tolist()))
    return heads, neurons


def some_loss(model):
    return lambda inputs: torch.nn.functional.cross_entropy(model(**inputs).logits, torch.tensor([0, 1, 2]))


@pytest.mark.parametrize("saliency", ["snip_momentum", "magnitude", "gradient"])
@pytest.mark.parametrize("family", ["bert", "distilbert"])
def test_select_once_takes_the_highest_scores_and_leaves_the_weights_alone(family, saliency):
    model = tiny(family).train()
    before = {name: (p.data_ptr(), p.detach().clone()) for name, p in model.named_parameters()}
    batches = [batch(seed=seed) for seed in range(4)]
    selection = select_once(model, batches, some_loss(model), Config(saliency=saliency))
    assert model.training
    for name, parameter in model.named_parameters():
        assert parameter.grad is None, name
        assert parameter.data_ptr() == before[name][0], name
        assert torch.equal(parameter, before[name][1]), name
    reference = tiny(family)
    assert (selection.heads, selection.neurons) == reference_selection(
        reference, batches, some_loss(reference), saliency
    )


def test_scores_of_nothing_are_refused():
    model = tiny()
    for saliency, message in (("snip_momentum", "scores of .*layer.0.* tell nothing"), ("gradient", "keeps 4 units")):
        with pytest.raises(RuntimeError, match=message):
            select_once(model, [], some_loss(model), Config(saliency=saliency))


def test_a_loss_that_does_not_reach_a_layer_is_refused():
    model = tiny()

    def first_layer(inputs):
        return model.bert(**inputs, output_hidden_states=True).hidden_states[1].square().sum()

    with pytest.raises(ValueError, match=r"does not reach bert\.encoder\.layer\.1\.attention\.self\.query"):
        select_once(model, [batch()], first_layer, Config())
    assert select_once(model, [batch()], first_layer, Config(saliency="magnitude")).heads


@pytest.mark.parametrize(
    ("family", "settings", "message"),
    [
        ("deberta", {}, r"'deberta', whose deberta\.encoder\.layer\.0\.attention\.self\.in_proj is all three"),
        ("modernbert", {}, r"'modernbert', whose model\.layers\.0\.attn\.Wqkv is all three"),
        ("bert", {"saliency": "taylor"}, "saliency: taylor; allowed of INC: snip_momentum, magnitude, gradient"),
        ("bert", {"rounds": 9}, "rounds: 9; allowed: at most the 8 steps"),
        ("bert", {"start": 0.99, "end": 1.0}, "start: 0.99 of 12 training steps"),
    ],
)
def test_what_inc_cannot_prune_is_refused(family, settings, message):
    with pytest.raises(ValueError, match=message):
        begin(tiny(family), Config(**settings))


@pytest.mark.parametrize("part", ["attention.self.value", "output.dense"])
def test_a_layer_that_inc_loses_is_named(part, monkeypatch):
    from neural_compressor.compression.pruner import pruners

    lost, original = f"bert.encoder.layer.1.{part}", pruners.get_pruner

    def forgetful(info, modules):
        pruner = original(info, modules)
        (pruner.linear_layers if hasattr(pruner, "head_masks") else pruner.masks).pop(lost, None)
        return pruner

    monkeypatch.setattr(pruners, "get_pruner", forgetful)
    with pytest.raises(ValueError, match=f"^{lost}: not pruned by INC"):
        begin(tiny(), Config())


def test_selection_refuses_what_is_not_the_end_of_the_pruning(tmp_path):
    model, pruner = tiny(), IncPruner(Config())
    with pytest.raises(ValueError, match="before training"):
        pruner.selection(model)
    pruner = begin(model, Config())
    with pytest.raises(RuntimeError, match="its pruning is not over"):
        pruner.selection(model)
    train(tiny(), pruner, tmp_path / "whole", save_strategy="no")
    with pytest.raises(ValueError, match="layer 0 lacks INC's masks"):
        pruner.selection(model)


def test_half_precision_stays_ties_do_no_harm_and_no_random_number_is_drawn():
    model = tiny(intermediate_size=1024).to(torch.bfloat16)
    columns = Encoder(model).layers[0].ffn_out.weight.abs().mean(0)
    assert len(columns.unique()) < 512  # scores that INC alone would cut in bunches
    torch.manual_seed(5)
    state = torch.get_rng_state()
    selection = without_training(model, Config(saliency="magnitude")).selection(model)
    assert [len(neurons) for neurons in selection.neurons] == [512] * 3
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert torch.equal(torch.get_rng_state(), state)


def weight_pruning_config(**settings):
    from neural_compressor import WeightPruningConfig

    return WeightPruningConfig(start_step=2, end_step=8, pruning_frequency=2, **settings)


def test_an_inc_configuration_is_used_as_it_is(tmp_path):
    parts = [
        {"pattern": "mha", "target_sparsity": 0.5, "pruning_scope": "global", "sparsity_decay_type": "linear"},
        {"pattern": "channelx1", "op_names": [r"layer.\d.output.dense"], "target_sparsity": 0.6},
    ]
    config = weight_pruning_config(pruning_configs=copy.deepcopy(parts))
    model, pruner = tiny(), IncPruner(config)
    with torch.no_grad():
        for part in ("q", "k", "v", "attention_output"):
            getattr(Encoder(model).layers[1], part).weight.mul_(0.01)
    train(model, pruner, tmp_path, save_strategy="no")
    assert config.pruning_configs == parts  # INC fills in what it is given
    selection = pruner.selection(model.eval())
    heads = [layer.q.weight.unflatten(0, (4, 8)).flatten(1).any(1).sum().item() for layer in Encoder(model).layers]
    assert sum(heads) == 6
    assert not Encoder(model).layers[1].q.weight.any()
    assert selection.heads[1] == [0]  # a layer cannot lose all: one that is masked stays
    columns = [(layer.ffn_out.weight != 0).any(0).sum().item() for layer in Encoder(model).layers]
    assert sum(columns) == 3 * 64 - int(3 * 64 * 0.6)
    assert len(set(columns)) > 1
    assert [len(neurons) for neurons in selection.neurons] == columns
    with torch.no_grad():
        expected = model(**batch()).logits
        remove(model, selection)
        assert (model(**batch()).logits - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize(
    ("family", "settings", "message"),
    [
        ("bert", {"op_names": ["no_such_layer"]}, "op_names: no_such_layer, of which INC prunes nothing"),
        ("bert", {"op_names": ["classifier"]}, "op_names: classifier, of which INC prunes nothing"),
        ("bert", {"pattern": "5x1", "op_names": ["layer.0.output"]}, r"^bert.encoder.layer.0.output.dense: not pruned"),
        ("bert", {"excluded_op_names": ["bert"]}, "leave INC no layer"),
        ("bert", {"pruning_type": "retrain_free"}, "pruning_type: retrain_free; allowed: snip_momentum"),
        ("bert", {"pattern": "mha", "pruning_type": "magnitude"}, "criterion_type: snip_momentum; allowed"),
        ("modernbert", {"pattern": "mha"}, "'modernbert', whose model.layers.0.attn.Wqkv"),
    ],
)
def test_what_inc_would_pass_over_in_an_inc_configuration_is_refused(family, settings, message):
    with pytest.raises(ValueError, match=message):
        begin(tiny(family), weight_pruning_config(**{"pattern": "channelx1", "pruning_configs": [{}], **settings}))


def test_an_end_after_the_training_is_refused():
    with pytest.raises(ValueError, match="end_step: 8; allowed: below the 8 training steps"):
        begin(tiny(), weight_pruning_config(pattern="channelx1", pruning_configs=[{}]), steps=8)


@pytest.mark.long
@pytest.mark.parametrize(
    ("kind", "settings", "stop"),
    [
        ("snip_momentum_progressive", {}, 7),
        ("snip", {}, 7),
        ("magnitude", {"max_sparsity_ratio_per_op": 0.6}, 9),  # a layer that reaches it keeps its mask from there on
    ],
)
def test_other_inc_criteria_resume_to_the_bit_too(kind, settings, stop, tmp_path):
    def pruner():
        return IncPruner(
            weight_pruning_config(
                pruning_configs=[{}], pattern="channelx1", op_names=[r"layer.\d.output.dense"], pruning_type=kind,
                target_sparsity=0.4, **settings,
            )
        )  # fmt: skip

    def model():
        model = tiny()
        with torch.no_grad():
            Encoder(model).layers[1].ffn_out.weight.mul_(0.01)
        return model

    whole, again = pruner(), pruner()
    uninterrupted = train(model(), whole, tmp_path / "whole").model
    train(model(), pruner(), tmp_path / "killed", StopAt(stop), save_steps=stop)
    again.resume_from = tmp_path / "killed" / f"checkpoint-{stop}"
    resumed = train(tiny(seed=9), again, tmp_path / "killed", resume=str(again.resume_from)).model
    assert all(torch.equal(resumed.state_dict()[name], t) for name, t in uninterrupted.state_dict().items())
    states = []
    for folder in ("whole", "killed"):
        with safe_open(tmp_path / folder / "checkpoint-12" / PRUNING_STATE, "pt") as file:
            states.append(file.metadata())
    assert states[0] == states[1]


def test_inc_config_is_written_by_optimum_intels_class(tmp_path):
    pytest.importorskip("optimum.intel")
    save_inc_config(Config(head_sparsity=0.5, ffn_sparsity=0.25), tmp_path / "both")
    save_inc_config(Config(head_sparsity=0.0, saliency="magnitude"), tmp_path / "one")
    save_inc_config(weight_pruning_config(pattern="channelx1", target_sparsity=0.3), tmp_path / "theirs")

    def pruning(name):
        return json.loads((tmp_path / name / "inc_config.json").read_text())["pruning"]

    expected = {"approach": "snip_momentum", "pattern": ["mha", "channelx1"], "sparsity": [0.5, 0.25]}
    assert pruning("both") == expected
    assert pruning("one") == {"approach": "magnitude", "pattern": "channelx1", "sparsity": 0.5}
    assert pruning("theirs") == {"approach": "snip_momentum", "pattern": "channelx1", "sparsity": 0.3}
    from optimum.intel.neural_compressor import INCConfig

    assert INCConfig.from_pretrained(tmp_path / "both").pruning == expected


@pytest.mark.parametrize("saliency", ["snip_momentum", "gradient"])
def test_a_step_in_parts_is_scored_as_one(saliency):
    model, config = tiny(), Config(saliency=saliency)

    def loss_of(inputs):
        return torch.nn.functional.cross_entropy(model(**inputs).logits, inputs["input_ids"][:, 1] % 3)

    def cut(inputs, *sizes):
        parts = zip(*(tensor.split(sizes) for tensor in inputs.values()), strict=True)
        return [dict(zip(inputs, part, strict=True)) for part in parts]

    steps = [batch((9, 5, 7, 6, 3, 8), seed=seed) for seed in range(2)]
    parts = [part for step in steps for part in cut(step, 4, 2)]
    assert select_once(model, parts, loss_of, config, accumulation=2) == select_once(model, steps, loss_of, config)


@pytest.mark.parametrize("saliency", ["snip_momentum", "gradient"])
def test_scores_are_of_gradients_before_they_are_clipped_or_scaled(saliency, tmp_path):
    class Seen(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 2:
                self.scores = [copy.deepcopy(pruner.criterion.scores) for pruner in self.pruner._pruners]

    found = []
    for settings in ({"max_grad_norm": 0.0}, {"max_grad_norm": 1e-3}):
        seen = Seen()
        seen.pruner = IncPruner(Config(saliency=saliency, start=0.5, rounds=1))
        train(tiny(), seen.pruner, tmp_path, seen, save_strategy="no", optim="sgd", **settings, learning_rate=1e-9)
        found += seen.scores
    half = len(found) // 2
    for plain, clipped in zip(found[:half], found[half:], strict=True):
        for name, score in plain.items():
            torch.testing.assert_close(clipped[name], score, rtol=1e-3, atol=1e-3 * float(score.max()))


def test_a_gradient_that_overflowed_is_passed_over_and_a_scale_is_taken_out():
    pruners = []
    for scales in ((1.0,), (torch.inf, 65536.0)):
        model = tiny()
        pruner = begin(model, Config())
        for scale in scales:
            model.zero_grad()
            (scale * some_loss(model)(batch())).backward()
            pruner._scale = lambda scale=scale: scale
            pruner.after_backward(complete=True)
        pruners.append(pruner)
    for ours, theirs in zip(*(pruner._pruners for pruner in pruners), strict=True):
        for name, score in ours.criterion.scores.items():
            torch.testing.assert_close(theirs.criterion.scores[name], score, rtol=1e-4, atol=1e-7)


def test_what_is_still_to_go_goes_where_somebody_ended_the_training(tmp_path, caplog):
    caplog.set_level("WARNING", "edgemin_hf")
    model, pruner = tiny(), IncPruner(Config())
    train(model, pruner, tmp_path, StopAt(5), save_strategy="no")
    assert "training ended at step 5 of 12" in caplog.text
    assert [len(heads) for heads in pruner.selection(model).heads] == [2] * 3
