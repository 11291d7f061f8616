"""Twenty steps of plain SGD without dropout; run by tests/training/test_scale_out.py as one process and as two.

PYTHONPATH=. python -m tests.helpers.two_processes FOLDER EXAMPLES_A_BATCH [METHOD CHECKPOINT]
"""

import json
import sys
from pathlib import Path

import torch
from accelerate import PartialState
from datasets import Dataset
from torch.nn.parallel import DistributedDataParallel
from transformers import (
    AutoModelForMaskedLM,
    BertTokenizerFast,
    DataCollatorForTokenClassification,
    DataCollatorWithPadding,
    TrainingArguments,
)

import edgemin_hf
from edgemin_hf import DistillationTrainer, TaskDistillationConfig
from edgemin_hf.benchmark.layer_latency import LatencyTable
from tests.helpers.models import VOCABULARY, batch, tiny

METHODS = {
    "minilm": edgemin_hf.MiniLMConfig(),
    "minilmv2": edgemin_hf.MiniLMv2Config(teacher_layer=2, relation_heads=8),
    "distilbert": edgemin_hf.DistilBERTConfig(),
    "tinybert": edgemin_hf.TinyBERTConfig(),
    "pkd": edgemin_hf.PKDConfig(),
    "mlkd": edgemin_hf.MLKDConfig(),
    "task": TaskDistillationConfig(),
    "checkpointed layers": edgemin_hf.MiniLMv2Config(teacher_layer=2, relation_heads=8),
    "latency": TaskDistillationConfig(),
    "learned ranges": TaskDistillationConfig(),
    "evaluated before": TaskDistillationConfig(),
}


TIMES = ("_runtime", "_second", "_time")


def measured_once(model):
    """Instead of a measurement: costs that only the first process gets."""
    assert PartialState().is_main_process
    rows = (torch.tensor(rows, dtype=torch.float64) for rows in ([(1, 2.0), (4, 4.0)], [(32, 3.0), (64, 4.0)]))
    return LatencyTable(*rows, torch.tensor([1, 1]))


def rows(count, masked):
    inputs = batch([3 + (5 * row) % 7 for row in range(count)], seed=4)
    ids = [row[mask == 1].tolist() for row, mask in zip(inputs["input_ids"], inputs["attention_mask"], strict=True)]
    labels = [[-100, *row[1:]] for row in ids] if masked else [row % 3 for row in range(count)]
    return Dataset.from_dict({"input_ids": ids, "attention_mask": [[1] * len(row) for row in ids], "labels": labels})


def train(method, folder, size, tokenizer, checkpoint=None):
    head = AutoModelForMaskedLM if method == "distilbert" else None
    still = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    narrow = {"hidden_size": 16} if method in ("tinybert", "mlkd") else {}  # so that they need projections
    teacher, student = tiny(head=head, **still), tiny(seed=1, head=head, num_hidden_layers=2, **narrow, **still)
    collator = DataCollatorForTokenClassification if head else DataCollatorWithPadding
    latency = edgemin_hf.PruningConfig(target_latency_ms=2.5, saliency_examples=64, scope="model")
    # With 7 bits of weights the ranges that padding moved a little end further apart than what is compared.
    learned = edgemin_hf.QuantizationConfig(
        ranges="learned", range_learning_rate=0.1, calibration_examples=64, reduce_range=False
    )
    edgemin_hf.training.pruning.measure_latency_table = measured_once
    trainer = DistillationTrainer(
        student,
        teacher,
        TrainingArguments(
            str(folder), per_device_train_batch_size=size, max_steps=20, learning_rate=0.1, optim="sgd", seed=3,
            lr_scheduler_type="constant", save_strategy="steps", save_steps=10, report_to=[], use_cpu=True,
            disable_tqdm=True, gradient_checkpointing=method == "checkpointed layers", per_device_eval_batch_size=size,
        ),
        distillation_config=METHODS[method],
        pruning_config=latency if method == "latency" else None,
        quantization_config=learned if method == "learned ranges" else None,
        # Not as many as fill the last batches of an epoch, but where units or ranges are chosen by 64 of them.
        train_dataset=rows(64 if method in ("latency", "learned ranges") else 61, masked=head is not None),
        data_collator=collator(tokenizer),
        processing_class=tokenizer,
    )  # fmt: skip
    if checkpoint is None:
        trainer.prepare()
    before = {name: weight.clone() for name, weight in student.state_dict().items()}
    if method == "evaluated before":
        trainer.evaluate(rows(13, masked=False))
    trainer.train(resume_from_checkpoint=checkpoint)
    evaluation = trainer.predict(rows(13, masked=head is not None))
    everywhere = trainer.accelerator.gather(torch.cat([w.flatten() for w in student.state_dict().values()])[None])
    told = [name for name in before if name.endswith(("input_low", "input_high"))] or list(before)
    if trainer.is_world_process_zero():
        trainer.save_model(str(folder))
    return {
        "processes": trainer.args.world_size,
        "student_wrapped": isinstance(trainer.model_wrapped, DistributedDataParallel),
        "teacher_wrapped": isinstance(trainer.teacher_model, DistributedDataParallel),
        "equal_everywhere": bool((everywhere == everywhere[0]).all()),
        "metrics": {name: value for name, value in evaluation.metrics.items() if not name.endswith(TIMES)},
        "predictions": list(evaluation.predictions.shape),
        "moved": max((student.state_dict()[name] - before[name]).abs().max().item() for name in told),
    }


def main(folder, size, only=None, checkpoint=None):
    state = PartialState(cpu=True)
    torch.set_num_threads(1)
    folder.mkdir(parents=True, exist_ok=True)
    with state.main_process_first():
        (folder / "vocab.txt").write_text("\n".join(VOCABULARY))
        tokenizer = BertTokenizerFast(str(folder / "vocab.txt"))
    facts = {
        method: train(method, folder / method, size, tokenizer, checkpoint)
        for method in METHODS
        if only in (None, method)
    }
    if state.is_main_process:
        (folder / "facts.json").write_text(json.dumps(facts))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
