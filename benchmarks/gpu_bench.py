"""What `gpu.py` measures on: a device, models from configurations, texts of random words, trainers that are watched."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    PrinterCallback,
    TrainerCallback,
    TrainingArguments,
)

from edgemin_hf import DistillationTrainer, create_student
from edgemin_hf.distillation.base import DistillationConfig

WORDS = [f"w{number}" for number in range(900)]
SPECIAL = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
SPECIAL |= {"mask_token": "[MASK]"}


@dataclass(frozen=True)
class Size:
    """Shapes of the models, of a batch, and of the relation loss, and how often that is timed."""

    layers: int
    width: int
    heads: int
    student_width: int
    batch: int
    length: int
    relations: tuple[tuple[int, int], ...]
    repeats: int


SIZES = {
    "cuda": Size(12, 768, 12, 384, 32, 128, ((8, 512), (4, 1024)), 5),
    "cpu": Size(4, 128, 4, 64, 8, 48, ((1, 512), (1, 1024)), 1),
    "tiny": Size(2, 64, 4, 32, 4, 12, ((1, 64), (1, 128)), 1),
}


@dataclass
class Row:
    """What was measured: numbers by name, and whether what must hold does."""

    case: str
    numbers: dict[str, float]
    holds: bool


@dataclass
class Bench:
    """The device, the models and the texts that all measurements share."""

    device: torch.device
    size: Size
    folder: Path

    def __post_init__(self) -> None:
        words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
        rules = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, "[UNK]"))
        rules.pre_tokenizer = pre_tokenizers.Whitespace()
        self.tokenizer = PreTrainedTokenizerFast(tokenizer_object=rules, **SPECIAL)

    def teacher(self, kind: type[PreTrainedModel] = BertForSequenceClassification) -> PreTrainedModel:
        """Build the teacher: without dropout, and with weights that are large enough for layers to matter."""
        torch.manual_seed(0)
        size = self.size
        config = BertConfig(
            vocab_size=len(self.tokenizer), hidden_size=size.width, num_hidden_layers=size.layers, num_labels=5,
            num_attention_heads=size.heads, intermediate_size=4 * size.width, hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0, initializer_range=0.05, architectures=[kind.__name__],
        )  # fmt: skip
        return kind(config)

    def student(self, teacher: PreTrainedModel, *, wide: bool = False) -> PreTrainedModel:
        """Build the student, half as deep and, if not `wide`, half as wide."""
        torch.manual_seed(1)
        width = {} if wide else {"hidden_size": self.size.student_width}
        student = create_student(teacher, max(2, self.size.layers // 2), **width, initialization="random")
        return student

    def rows(self, batches: int) -> Dataset:
        """Make texts of random words and random lengths, with labels."""
        generator = torch.Generator().manual_seed(2)
        low, high = max(3, self.size.length // 4), self.size.length - 1
        texts = []
        for _ in range(batches * self.size.batch):
            count = int(torch.randint(low, high, (), generator=generator))
            numbers = torch.randint(len(WORDS), (count,), generator=generator).tolist()
            texts.append(" ".join(WORDS[number] for number in numbers))
        table: Dataset = Dataset.from_dict({**self.tokenizer(texts), "labels": [i % 5 for i in range(len(texts))]})
        return table

    def trainer(
        self,
        student: PreTrainedModel,
        teacher: PreTrainedModel | None,
        method: DistillationConfig,
        rows: Dataset,
        precision: str = "fp32",
        **arguments: object,
    ) -> DistillationTrainer:
        """Make a trainer as a user would; `arguments` are its own or those of `TrainingArguments`."""
        own = {name: arguments.pop(name) for name in list(arguments) if name.endswith("_config")}
        own |= {name: arguments.pop(name) for name in ("data_collator", "callbacks") if name in arguments}
        # TrainingArguments leaves its precision there, where those of the next trainer would find it.
        os.environ["ACCELERATE_MIXED_PRECISION"] = "no"
        defaults = {"learning_rate": 1e-4, "max_grad_norm": 1e9, "lr_scheduler_type": "constant", "logging_steps": 1}
        defaults |= {"report_to": [], "disable_tqdm": True, "save_strategy": "no", "log_level": "error"}
        args = TrainingArguments(
            str(self.folder / "trainer"), per_device_train_batch_size=self.size.batch, bf16=precision == "bf16",
            fp16=precision == "fp16", use_cpu=self.device.type == "cpu", seed=0, **{**defaults, **arguments},
        )  # fmt: skip
        trainer = DistillationTrainer(
            student,
            teacher,
            args,
            distillation_config=method,
            train_dataset=rows,
            processing_class=self.tokenizer,
            **own,
        )
        trainer.remove_callback(PrinterCallback)
        return trainer

    def synchronize(self) -> None:
        """Wait for the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def peak_mb(self, function: Callable[[], object]) -> float:
        """Return what the GPU holds at most meanwhile, less what it held before (10^6 bytes); 0 on the CPU."""
        if self.device.type != "cuda":
            function()
            return 0.0
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function()
        return (torch.cuda.max_memory_allocated() - before) / 1e6


class Watch(TrainerCallback):
    """Keep the first finite gradients, unscaled, and the times of the steps."""

    def __init__(self, bench: Bench) -> None:
        self.bench, self.gradients, self.seconds, self._start = bench, dict[str, Tensor](), list[float](), 0.0

    def on_step_begin(self, *args: object, **kwargs: object) -> None:
        """Start the clock."""
        self.bench.synchronize()
        self._start = time.perf_counter()

    def on_pre_optimizer_step(self, *args: object, model: PreTrainedModel, **kwargs: object) -> None:
        """Take the gradients."""
        found = {name: p.grad.float().cpu() for name, p in model.named_parameters() if p.grad is not None}
        if not self.gradients and all(gradient.isfinite().all() for gradient in found.values()):
            self.gradients = found

    def on_step_end(self, *args: object, **kwargs: object) -> None:
        """Stop the clock."""
        self.bench.synchronize()
        self.seconds.append(time.perf_counter() - self._start)
