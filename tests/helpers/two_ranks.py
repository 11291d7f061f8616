"""What two processes decide on a student's shape where each sees other data; run by tests/utils/test_processes.py.

PYTHONPATH=. python -m tests.helpers.two_ranks FOLDER, in two processes of a gloo group or in one.
"""

import json
import sys
from pathlib import Path

import torch
from accelerate import PartialState
from datasets import Dataset
from transformers import BertTokenizerFast, TrainingArguments

from edgemin_hf import (
    DistillationTrainer,
    PruningConfig,
    QuantizationConfig,
    TaskDistillationConfig,
    TinyBERTConfig,
    prune,
    quantize,
)
from edgemin_hf.modeling.pruned_shape import pruned_shape
from edgemin_hf.quantization.native import fake_quantized_linears
from edgemin_hf.utils.processes import check_same, share_from_first
from tests.helpers.models import VOCABULARY, batch, tiny
from tests.helpers.training import without_dropout

ROWS = 22
"""Neither a multiple of a batch nor of the batches of two processes."""
LABELS_ALONE = TaskDistillationConfig(soft_weight=0.0, hard_weight=1.0)
GRADUAL = {"schedule": "cubic", "start": 0.1, "end": 0.8, "rounds": 2}
CUTS = {
    "layers": {"layer_sparsity": 0.34},
    "taylor": {"head_sparsity": 0.5, "ffn_sparsity": 0.5},
    "taylor_weights": {"head_sparsity": 0.5, "ffn_sparsity": 0.5, "saliency": "taylor_weights"},
    "fisher": {"head_sparsity": 0.5, "ffn_sparsity": 0.5, "saliency": "fisher", "tune_masks": True},
    "budget": {"target_parameters": 20_000, "scope": "model"},
    "snip_momentum": {"head_sparsity": 0.5, "ffn_sparsity": 0.5, "saliency": "snip_momentum"},
    "gradient": {"head_sparsity": 0.5, "ffn_sparsity": 0.5, "saliency": "gradient"},
}


def rows():
    inputs = batch([3 + (5 * row) % 7 for row in range(ROWS)], seed=4)
    ids = [row[mask == 1].tolist() for row, mask in zip(inputs["input_ids"], inputs["attention_mask"], strict=True)]
    labels = [row % 3 for row in range(ROWS)]
    return Dataset.from_dict({"input_ids": ids, "attention_mask": [[1] * len(row) for row in ids], "labels": labels})


def trainer_of(folder, tokenizer, pruning=None, quantization=None, student=None, method=LABELS_ALONE, **arguments):
    size = 4 // PartialState().num_processes
    defaults = {"per_device_train_batch_size": size, "max_steps": 5, "learning_rate": 1e-3, "seed": 3}
    defaults |= {"save_strategy": "no", "report_to": [], "use_cpu": True, "disable_tqdm": True}
    return DistillationTrainer(
        without_dropout(tiny() if student is None else student),
        None if method is LABELS_ALONE else tiny(),
        TrainingArguments(str(folder), **{**defaults, **arguments}),
        distillation_config=method,
        pruning_config=None if pruning is None else PruningConfig(**{"saliency_examples": 20, **pruning}),
        quantization_config=quantization,
        train_dataset=rows(),
        processing_class=tokenizer,
    )


def facts_of(model):
    """What two processes must agree on, and what tells units apart that shapes do not."""
    sums = [float(weight.double().abs().sum()) for weight in model.state_dict().values()]
    return {"shape": pruned_shape(model.config)._asdict(), "sums": sums}


def message_of(run):
    try:
        run()
    except RuntimeError as error:
        return str(error)
    return ""


def decide(folder, tokenizer):
    """Return what each decision led to, by name."""
    found = {}
    for name, pruning in CUTS.items():
        # A student of whose layers each process by itself would remove another.
        student = tiny(seed=2) if name == "layers" else None
        trainer = trainer_of(folder / name, tokenizer, pruning, student=student)
        trainer.prepare()
        found[name] = facts_of(trainer.model)
    for saliency in ("taylor", "snip_momentum"):
        pruning = {"head_sparsity": 0.5, "ffn_sparsity": 0.5, "saliency": saliency, **GRADUAL}
        trainer = trainer_of(folder / saliency, tokenizer, pruning)
        trainer.train()
        found[f"{saliency}, gradual"] = facts_of(trainer.model)
    trainer = trainer_of(
        folder / "ranges", tokenizer, quantization=QuantizationConfig(range_momentum=0.3, frozen_share=0.0)
    )
    trainer.prepare()
    found["calibrated"] = ranges_of(trainer.model)
    trainer.train()
    found["ranges"] = ranges_of(trainer.model)
    return found | in_one_call()


def ranges_of(model):
    return [[module.input_low.item(), module.input_high.item()] for module in fake_quantized_linears(model)]


def in_one_call():
    """Prune and quantise without a trainer, each process by its share of the rows."""
    every = {**batch([9] * 8, seed=2), "labels": torch.arange(8) % 3}
    state = PartialState()
    share = slice(4 * state.process_index, 4 * state.process_index + 4) if state.num_processes > 1 else slice(8)
    own = [{name: tensor[share] for name, tensor in every.items()}]
    pruned = prune(tiny(), PruningConfig(0.5, 0.5), own)
    return {"prune": facts_of(pruned), "quantize": ranges_of(quantize(tiny(), QuantizationConfig(), own))}


def disagreements(folder, tokenizer):
    """Return what is said where processes begin with, or come to, different students."""
    rank = PartialState().process_index
    different = trainer_of(folder / "seeds", tokenizer, {"ffn_sparsity": 0.5}, student=tiny(seed=rank))
    different.prepare()
    torch.manual_seed(rank)
    narrow = trainer_of(folder / "narrow", tokenizer, student=tiny(hidden_size=16), method=TinyBERTConfig())
    projections = [float(weight.sum()) for weight in narrow.objectives[0].projections.parameters()]
    shapes = message_of(lambda: trainer_of(folder / "shapes", tokenizer, student=tiny(num_hidden_layers=2 + rank)))
    return {
        "shared": facts_of(different.model),
        "projections": projections,
        "shapes": shapes,
        "value": message_of(lambda: check_same("the layer that goes", rank)),
        "module": message_of(lambda: share_from_first("projections", [torch.nn.Linear(2, 2 + rank)])),
    }


def main(folder):
    state = PartialState(cpu=True)
    torch.set_num_threads(1)
    with state.main_process_first():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "vocab.txt").write_text("\n".join(VOCABULARY))
    tokenizer = BertTokenizerFast(str(folder / "vocab.txt"))
    facts = decide(folder, tokenizer)
    if state.num_processes > 1:
        facts |= disagreements(folder, tokenizer)
    (folder / f"facts-{state.process_index}.json").write_text(json.dumps(facts))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
