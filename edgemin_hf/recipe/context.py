"""A recipe at work: its data, tokenizer and models, and what its finished stages wrote down."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from datasets import Dataset
from huggingface_hub.constants import HF_HOME
from safetensors.torch import load_model
from torch.utils.data import Dataset as TorchDataset
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    set_seed,
)

from edgemin_hf.data.corpus import TokenBlocks, token_stream
from edgemin_hf.data.masked_lm import load_masked_lm
from edgemin_hf.data.raw_text import HubText, TextFiles
from edgemin_hf.data.tables import read_sentences, read_table, tokenize
from edgemin_hf.distillation.task import TEACHER_LOGITS
from edgemin_hf.distillation.teacher_logits import cached_teacher_logits
from edgemin_hf.hub.checkpoints import resolve_checkpoint
from edgemin_hf.modeling.families import family_of
from edgemin_hf.modeling.loading import load_pruned
from edgemin_hf.modeling.student import create_student, student_config, student_from_checkpoint
from edgemin_hf.quantization.native import prepare_qat
from edgemin_hf.recipe.schema import TRAINS_STUDENT, RawText, Recipe, RecipeError, Student, model_name, student_shape
from edgemin_hf.recipe.stages.settings import Assistant, Augment, Distill, Finetune, PruneVocabulary, Quantize, Stage
from edgemin_hf.tasks.text_classification import TextClassification
from edgemin_hf.utils.hardware import cpu_flags

CACHE = Path(HF_HOME) / "edgemin"
"""Where tokenised raw text is kept, for all runs."""
AUGMENTED_ROWS = "train.parquet"
_UNPACKED_VALIDATION_SHARE = 0.05


class Run:
    """A recipe at work: its data, tokenizer and models, each loaded when a stage first asks for it.

    Args:
        recipe: The recipe.
        settings: The plain settings that it was made from.
        root: The folder that its paths are relative to.
        output: The folder of the run.
    """

    def __init__(self, recipe: Recipe, settings: Mapping[str, Any], root: Path, output: Path) -> None:
        self.recipe = recipe
        self.settings = settings
        self.root = root
        self.output = output
        self.processes = int(os.environ.get("WORLD_SIZE", 1))
        self.threads = recipe.threads or max(1, len(os.sched_getaffinity(0)) // self.processes)
        torch.set_num_threads(self.threads)

    @cached_property
    def teacher_folder(self) -> str:
        """Folder of the teacher of all student stages: the fine-tuned one, where the recipe makes one."""
        finetuned = any(isinstance(stage, Finetune) for stage in self.recipe.stages)
        return str(self.output / Finetune.folder) if finetuned else self.base_folder

    @cached_property
    def base_folder(self) -> str:
        """Folder of the teacher as the recipe names it; found or downloaded, and told on the terminal."""
        found = resolve_checkpoint(model_name(self.recipe.teacher.model, self.root))
        if PartialState().is_main_process:
            print(f"teacher {self.recipe.teacher.model}: weights from {found.source}", flush=True)
        return found.path

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The teacher's tokenizer, and the student's while it trains; it neither pads nor cuts unless asked."""
        # From the fine-tuned teacher where there is one: the Hub is not needed again.
        finetune = next((stage for stage in self.recipe.stages if isinstance(stage, Finetune)), None)
        finetuned = finetune is not None and (self.record(finetune) or {}).get("finished")
        return _free_tokenizer(self.teacher_folder if finetuned else self.base_folder)

    def tokenizer_of(self, model: str) -> PreTrainedTokenizerBase:
        """Return the tokenizer of the finished "student" or of the "teacher": two, where the vocabulary was cut."""
        cut = any(isinstance(stage, PruneVocabulary) for stage in self.recipe.stages)
        if model == "student" and cut:
            return _free_tokenizer(str(self.output / PruneVocabulary.folder))
        return self.tokenizer

    @property
    def task(self) -> TextClassification:
        """The task, of a stage that can't be without one."""
        assert self.recipe.task is not None  # noqa: S101 - the recipe's check
        return self.recipe.task

    @cached_property
    def label_ids(self) -> dict[str, int]:
        """Number of each label: the teacher's own where it is not fine-tuned here."""
        if any(isinstance(stage, Finetune) for stage in self.recipe.stages):
            return {label: index for index, label in enumerate(self.task.labels(self.root))}
        return AutoConfig.from_pretrained(self.teacher_folder).label2id

    @cached_property
    def data(self) -> tuple[Dataset, Dataset]:
        """Training and validation rows of the task."""
        return self.task.train_and_validation(self.root, self.tokenizer, self.label_ids, self.recipe.seed)

    @cached_property
    def student_data(self) -> tuple[Dataset, Dataset]:
        """The rows that a student is trained on and validated with: augmented where the recipe says so."""
        if not any(isinstance(stage, Augment) for stage in self.recipe.stages):
            return self.data
        table = read_table(self.output / Augment.folder / AUGMENTED_ROWS)
        return self.task.tokenized(table, self.tokenizer, self.label_ids), self.data[1]

    @cached_property
    def data_with_teacher_logits(self) -> tuple[Dataset, Dataset]:
        """The same rows with the teacher's logits, which are computed once for all stages."""
        with PartialState().main_process_first():
            train, validation = self.student_data
            return self._with_logits(train, "train"), self._with_logits(validation, "validation")

    def _with_logits(self, dataset: Dataset, part: str) -> Dataset:
        file = self.output / "cache" / f"{part}_logits.safetensors"
        teacher = self.load(self.teacher_folder).to(PartialState().device)
        logits = cached_teacher_logits(teacher, dataset, self.tokenizer, file, self._logits_key(dataset))
        return dataset.add_column(TEACHER_LOGITS, list(logits.numpy()))

    def _logits_key(self, dataset: Dataset) -> str:
        """Hash what the logits are computed from: the teacher's weights and the token ids."""
        key = hashlib.sha256(json.dumps(dataset["input_ids"][:]).encode())
        for weights in sorted(Path(self.teacher_folder).glob("*.safetensors")):
            with weights.open("rb") as stream:
                key.update(hashlib.file_digest(stream, "sha256").digest())
        return key.hexdigest()

    @cached_property
    def raw_text(self) -> tuple[TorchDataset[Any], TorchDataset[Any]]:
        """Training and validation examples of stage 1."""
        raw = self.recipe.raw_text
        assert raw is not None  # noqa: S101 - the recipe's check
        if raw.pack:
            try:
                stream = token_stream(raw_text_source(raw, self.root), self.tokenizer, CACHE)
                return TokenBlocks(stream, self.tokenizer, raw.max_length).split(raw.validation_blocks)
            except ValueError as error:  # how many blocks there are is known when the text has been read
                raise RecipeError(f"raw_text: {error}") from None
        table = read_sentences([self.root / file for file in raw.files], raw.text_column)
        sentences = tokenize(table, raw.text_column, self.tokenizer, raw.max_length)
        if self.recipe.task is not None:
            return sentences, self.data[1]
        split = sentences.train_test_split(test_size=_UNPACKED_VALIDATION_SHARE, seed=self.recipe.seed)
        return split["train"], split["test"]

    @property
    def packs(self) -> bool:
        """Whether raw text is packed into blocks of one length."""
        return self.recipe.raw_text is not None and self.recipe.raw_text.pack

    @property
    def bf16(self) -> bool:
        """Whether training computes in bf16: as the recipe says, or where the processor does so natively."""
        if self.recipe.precision != "auto":
            return self.recipe.precision == "bf16"
        if torch.cuda.is_available():
            return torch.cuda.is_bf16_supported()
        return bool(cpu_flags() & {"avx512_bf16", "amx_bf16"})

    def load(self, folder: str | Path, head: Any = AutoModelForSequenceClassification) -> PreTrainedModel:
        """Load a model from safetensors, a classifier if not said otherwise.

        A head that the checkpoint lacks is made for the task's labels; what it lacks is drawn under the recipe's seed.
        """
        labels: dict[str, Any] = {}
        set_seed(self.recipe.seed)
        architecture = (AutoConfig.from_pretrained(folder).architectures or [""])[0]
        if head is AutoModelForSequenceClassification and "SequenceClassification" not in architecture:
            labels = self.labels if self.recipe.task else {}
        return load_pruned(folder, head, **labels)

    @property
    def labels(self) -> dict[str, Any]:
        """What tells a checkpoint of the task's labels: arguments of `from_pretrained`."""
        ids = self.label_ids
        names = {index: label for label, index in ids.items()}
        return {"num_labels": len(ids), "label2id": ids, "id2label": names, "problem_type": self.task.problem_type}

    def teacher(self, stage: Distill) -> PreTrainedModel:
        """Load the teacher of a stage of inner distillation: the assistant, the fine-tuned one, or the recipe's own.

        A masked-LM head is only in the checkpoint that the recipe names.
        """
        head = self._head(stage)
        if stage.stage != "distill" or self.recipe.assistant is None:
            if head is AutoModelForMaskedLM:
                return load_masked_lm(self.base_folder)
            return self.load(self.teacher_folder, head)
        return self.load(self.output / Assistant.folder, head)

    def _head(self, stage: Stage) -> Any:
        if isinstance(stage, Distill) and stage.method == "distilbert":
            return AutoModelForMaskedLM
        return AutoModel if self.recipe.task is None else AutoModelForSequenceClassification

    def student(self, stage: Stage) -> PreTrainedModel:
        """Load what the stage before left of the student, or makes it from its teacher; likewise an assistant."""
        names = [other.stage for other in self.recipe.stages]
        leave_student = (*TRAINS_STUDENT, PruneVocabulary.folder)
        before = [s for s in self.recipe.stages[: names.index(stage.stage)] if s.stage in leave_student]
        if before:
            return self.trained(before[-1], self._head(stage))
        shape = self.recipe.assistant if isinstance(stage, Assistant) else self.recipe.student
        assert shape is not None  # noqa: S101 - the recipe's check
        teacher = self.teacher(stage) if isinstance(stage, Distill) else self.load(self.teacher_folder)
        set_seed(self.recipe.seed)
        if shape.checkpoint is not None:
            found = resolve_checkpoint(model_name(shape.checkpoint, self.root))
            student = student_from_checkpoint(teacher, self.tokenizer, found.path)
        else:
            student = create_student(teacher, **student_shape(shape), initialization=shape.initialization)
        if self._head(stage) is AutoModelForSequenceClassification:
            # A teacher need not say it, but pipelines would squash the score of a student that does not.
            student.config.problem_type = self.task.problem_type
        return student

    def trained(self, stage: Stage, head: Any = AutoModelForSequenceClassification) -> PreTrainedModel:
        """Load the student that a stage left, with fake-quantised modules and their ranges from `quantize` on."""
        folder = self.output / stage.folder
        student, quantized = self.load(folder, head), self.quantized(stage)
        if quantized is not None:
            prepare_qat(student, quantized)
            load_model(student, folder / "model.safetensors")
        return student

    def quantized(self, stage: Stage) -> Quantize | None:
        """Return the stage by which the student of a stage was quantised: itself, or one before; None where none."""
        names = [other.stage for other in self.recipe.stages]
        # The search for a layer trains by a stage that the recipe need not have.
        until = self.recipe.stages[: names.index(stage.stage) + 1] if stage.stage in names else []
        if isinstance(stage, Quantize) and stage.target_size_mb is None:
            return stage  # whose precisions may have been chosen a moment ago
        found = next((other for other in until if isinstance(other, Quantize)), None)
        if found is None or found.target_size_mb is None:
            return found
        record = self.record(found) or {}
        return found.with_precisions(record["precisions"])

    def record_file(self, stage: Stage) -> Path:
        """File in which a stage writes down what it is made of, and when it has finished, what it did."""
        return self.output / "stages" / f"{stage.stage}.json"

    def record(self, stage: Stage) -> dict[str, Any] | None:
        """Read what a stage wrote down; None where it never began."""
        file = self.record_file(stage)
        return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None


def _free_tokenizer(folder: str) -> PreTrainedTokenizerBase:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if tokenizer.is_fast:
        tokenizer.backend_tokenizer.no_padding()
        tokenizer.backend_tokenizer.no_truncation()
    return tokenizer


def raw_text_source(raw: RawText, root: Path) -> TextFiles | HubText:
    """Return the documents that a recipe's packed raw text names."""
    if raw.dataset is not None:
        return HubText(raw.dataset, raw.dataset_config, raw.dataset_split, raw.revision, raw.text_column)
    return TextFiles([root / file for file in raw.files], raw.text_column)


def student_configs(
    recipe: Recipe, root: Path, teacher: PretrainedConfig
) -> tuple[PretrainedConfig | None, PretrainedConfig]:
    """Return the configurations of a recipe's assistant, if it has one, and of its student; loads no weights.

    Raises:
        ValueError: If a shape or a checkpoint is not possible; the message begins with its field.
    """

    def config_of(shape: Student, of: PretrainedConfig, name: str) -> PretrainedConfig:
        try:
            if shape.checkpoint is None:
                return student_config(of, **student_shape(shape))
            found = resolve_checkpoint(model_name(shape.checkpoint, root), weights=False)
            config = AutoConfig.from_pretrained(found.path)
            family_of(config)
            if config.vocab_size != teacher.vocab_size:
                raise ValueError(
                    f"checkpoint: {shape.checkpoint}, whose vocabulary has {config.vocab_size} tokens; "
                    f"allowed: one with the teacher's, of {teacher.vocab_size}"
                )
            return config
        except ValueError as error:
            raise ValueError(f"{name}.{error}") from None

    assistant = config_of(recipe.assistant, teacher, "assistant") if recipe.assistant else None
    return assistant, config_of(recipe.student, assistant or teacher, "student")
