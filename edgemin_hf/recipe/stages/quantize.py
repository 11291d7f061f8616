"""The stage `quantize`: quantisation-aware training of the student, or quantisation without any training."""

from __future__ import annotations

import json
from dataclasses import asdict, field, replace
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal

import torch
from accelerate import PartialState
from pydantic.dataclasses import dataclass
from pydantic.json_schema import SkipJsonSchema
from torch.utils.data import DataLoader
from transformers import PreTrainedModel

from edgemin_hf.data.drawing import drawn
from edgemin_hf.data.padding import PaddingCollator
from edgemin_hf.modeling.auto_class import new_model
from edgemin_hf.modeling.families import shape_of
from edgemin_hf.modeling.hooks import filter_forward_inputs
from edgemin_hf.modeling.pruned_shape import unpruned
from edgemin_hf.modeling.surgery import check_prunable
from edgemin_hf.neural_compressor.guest import write_inc_config
from edgemin_hf.neural_compressor.pruners import pruning_steps
from edgemin_hf.neural_compressor.ptq import quantize_by_inc
from edgemin_hf.pruning.config import PruningConfig
from edgemin_hf.pruning.feasible import check_removal, check_rounds
from edgemin_hf.quantization.config import QuantizationConfig
from edgemin_hf.quantization.precision import precisions
from edgemin_hf.quantization.reconstruction import ReconstructionConfig, reconstruct
from edgemin_hf.recipe.context import Context
from edgemin_hf.recipe.estimate import Work, flops_per_token
from edgemin_hf.recipe.out_of_scope import check_out_of_scope, shift_out_of_scope
from edgemin_hf.recipe.outcome import Outcome
from edgemin_hf.recipe.schema import STRICT, Product, RecipeError
from edgemin_hf.recipe.search.precisions import choose_precisions
from edgemin_hf.recipe.stages.base import Stage, student_before
from edgemin_hf.recipe.stages.training import TaskStage
from edgemin_hf.recipe.train import Parts, make_trainer, train
from edgemin_hf.report.records import ModuleError
from edgemin_hf.sensitivity.target_size import least_bytes
from edgemin_hf.training.pruning import check_schedule
from edgemin_hf.training.trainer import DistillationTrainer
from edgemin_hf.utils.atomic_files import write_atomic
from edgemin_hf.utils.extras import check_extra
from edgemin_hf.utils.settings import settings_of


@dataclass(config=STRICT)
class Pruning(PruningConfig):
    """The settings of `PruningConfig` inside another stage's."""


@dataclass(config=STRICT)
class Reconstruction(ReconstructionConfig):
    """The settings of `ReconstructionConfig` inside another stage's; its seed is the recipe's."""

    seed: SkipJsonSchema[int] = field(default=0, init=False)

    def seeded(self, seed: int) -> ReconstructionConfig:
        """Return the settings of the reconstruction alone."""
        return ReconstructionConfig(**{**asdict(self), "seed": seed})


@dataclass(config=STRICT)
class Quantize(TaskStage, QuantizationConfig):
    """Quantisation-aware training of the student, distilled from the teacher. See `QuantizationConfig`.

    With `max_steps: 0` it is post-training quantisation: the student is calibrated and not trained. With provider "inc"
    Neural Compressor's own does that.

    Attributes:
        pruning: Settings of the stage `prune`, which prune the student in the same training; None does not.
        reconstruction: Trains module after module to compute what the student computed before it was quantised, after
            the calibration and before the first step; {} takes all defaults, None does not. Native provider, without
            `pruning`.

    Example:
        >>> from edgemin_hf.recipe.stages import Quantize
        >>> stage = Quantize(max_steps=0, weights="int8", embeddings="int4")  # calibrated, not trained
        >>> stage.folder, stage.embeddings
        ('quantize', 'int4')
    """

    pruning: Pruning | None = None
    reconstruction: Reconstruction | None = None
    stage: Literal["quantize"] = "quantize"
    hub_tag: ClassVar[str | None] = "quantization-aware-training"
    leaves: ClassVar[tuple[Product, ...]] = (Product.STUDENT, Product.TASK_STUDENT, Product.QUANTIZED)
    not_after: ClassVar[tuple[Product, ...]] = (Product.QUANTIZED, Product.GRAPHS)
    least_steps: ClassVar[int] = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        QuantizationConfig.__post_init__(self)
        if self.pruning is not None:
            if self.provider == "inc":
                raise ValueError("pruning: beside provider inc; allowed: a stage prune of its own")
            if self.target_size_mb is not None:
                raise ValueError("pruning: beside target_size_mb; allowed: a stage prune of its own before it")
            if self.max_steps == 0 and self.pruning.schedule != "one_shot":
                raise ValueError(
                    f"max_steps: 0 with pruning.schedule {self.pruning.schedule}; allowed: 1 or more, or one_shot"
                )
        if self.reconstruction is not None:
            if self.freeze_embeddings:
                raise ValueError("freeze_embeddings: true beside reconstruction, which trains them; allowed: false")
            if self.provider == "inc":
                raise ValueError("reconstruction: beside provider inc, whose scales it can't train; allowed: native")
            if self.pruning is not None:
                raise ValueError(
                    "reconstruction: beside pruning, which leaves no unpruned model to compute like; allowed: a stage "
                    "prune of its own"
                )

    @property
    def quantized_by_inc(self) -> bool:
        """Whether Neural Compressor's post-training quantisation does it."""
        return self.provider == "inc" and self.max_steps == 0

    def check(self, context: Context) -> None:
        """Check that the student can be quantised so, and pruned in the same training."""
        super().check(context)
        check_out_of_scope(context, self.provider)
        if self.provider == "inc":
            if context.recipe.precision == "bf16":
                raise RecipeError(
                    "precision: bf16 beside provider inc; allowed: auto (that stage is trained in fp32), fp32"
                )
            check_extra("inc", "provider: inc")
        if self.pruning is not None:
            check_schedules(self.pruning, self, context)
            check_pruning(self.pruning, self, context)
        student = _prepared(self, context)
        precisions(student, self)
        # How small pruning, and a cut of the vocabulary, make the student first is not known yet.
        made_smaller = any(context.maker(product, before=self) for product in (Product.PRUNED, Product.VOCABULARY))
        if self.target_size_mb is not None and not made_smaller:
            _check_target_size(student, self)

    def parts(self, context: Context, model: PreTrainedModel | None = None) -> Parts:
        """Return what its trainer is made of. See `TrainingStage.parts`."""
        parts = super().parts(context, model)
        parts.pruning, parts.fp32 = self.pruning, self.provider == "inc"
        # What Neural Compressor quantises once is plain until then.
        parts.quantization = None if self.quantized_by_inc else self
        return parts

    def run(self, context: Context, folder: Path, work: Path) -> Outcome:
        """Train, or calibrate; choose precisions before it where a size is asked for. See `Stage.run`."""
        if self.target_size_mb is None:
            return self._run(context, folder, work)
        tokenizer = context.student_tokenizer(self)
        collator, _ = context.task.collation(tokenizer, context.recipe.seed) or (PaddingCollator(tokenizer), [])
        try:
            chosen = choose_precisions(
                context,
                self,
                lambda: self.student(context),
                context.rows_of(self)[0],
                collator if isinstance(collator, PaddingCollator) else PaddingCollator(tokenizer),
                self.per_device_train_batch_size,
                work,
            )
        except ValueError as error:
            raise RecipeError(f"{self.name}.{error}") from None
        found = replace(self, overrides={**self.overrides, **chosen.precisions}, target_size_mb=None)
        result = found._run(context, folder, work)
        return replace(result, precisions=chosen.precisions, notes=(*chosen.notes, *result.notes))

    def _run(self, context: Context, folder: Path, work: Path) -> Outcome:
        trainer = make_trainer(context, self, work, self.parts(context))
        asked = self._quantize_by_inc(trainer) if self.quantized_by_inc else None

        def write_beside(partial: Path) -> None:
            if asked is not None:
                write_inc_config(partial, quantization=asked)

        def prepare(resumed: bool) -> Outcome:
            return Outcome() if self.reconstruction is None else self._reconstruct(context, trainer, work, resumed)

        finish = partial(shift_out_of_scope, context, trainer, trainer.eval_dataset)
        return train(
            self,
            trainer,
            folder,
            context.task.metric_name,
            prepare=prepare,
            finish=finish,
            write_beside=write_beside,
        )

    def _quantize_by_inc(self, trainer: DistillationTrainer) -> object:
        """Quantise the trainer's student by Neural Compressor; return what that was asked for.

        All processes do the same, on the same rows, drawn at random and put in the order of their lengths.
        """
        rows = drawn(trainer.train_dataset, self.calibration_examples, trainer.args.seed)
        lengths = [len(ids) for ids in rows["input_ids"]]
        rows = rows.select(sorted(range(len(rows)), key=lengths.__getitem__))
        loader = DataLoader(rows, trainer.args.train_batch_size, collate_fn=trainer.data_collator)
        try:
            asked = quantize_by_inc(trainer.model, self, [filter_forward_inputs(trainer.model, b) for b in loader])
        except ValueError as error:
            raise RecipeError(f"{self.name}: {error}") from error
        trainer.record["quantization"] = settings_of(self, QuantizationConfig)
        return asked

    def _reconstruct(self, context: Context, trainer: DistillationTrainer, work: Path, resumed: bool) -> Outcome:
        """Reconstruct a calibrated student, against the one that the stage began with, on rows drawn at random.

        All processes do the same, on the same rows. A checkpoint brings a student that was reconstructed before it.

        Returns:
            The errors of each module.
        """
        assert self.reconstruction is not None  # noqa: S101 - the caller's check
        config, file = self.reconstruction.seeded(context.recipe.seed), work / "reconstruction.json"
        model = trainer.model
        if not resumed:
            rows = drawn(trainer.train_dataset, config.examples, config.seed)
            loader = DataLoader(rows, config.batch_size, collate_fn=trainer.data_collator)
            batches = (filter_forward_inputs(model, batch) for batch in loader)
            found = reconstruct(model, self.student(context).to(model.device), batches, config)
            if PartialState().is_main_process:
                write_atomic(file, json.dumps([module._asdict() for module in found]))
        PartialState().wait_for_everyone()
        modules = tuple(map(ModuleError.from_dict, json.loads(file.read_text(encoding="utf-8"))))
        errors = [f"{module.name} {module.before:.1e} -> {module.after:.1e}" for module in modules]
        return Outcome(reconstruction=modules, notes=(f"errors of the modules: {', '.join(errors)}",))

    def work(self, context: Context) -> Work:
        """Return what the training runs, and what is done before it. See `TaskStage.work`."""
        found = super().work(context)
        tokens, shape = found.text.tokens, shape_of(found.trained)
        more = 0.0
        if self.reconstruction is not None:
            # Each module's steps go through its own layers alone: together they are those of all layers.
            more += 3 * self.reconstruction.steps * self.reconstruction.batch_size * tokens * flops_per_token(shape)
        if self.target_size_mb is not None:
            # Six matrices a layer, each in two precisions, for half a pass on average.
            examples = 6 * shape.num_hidden_layers * self.calibration_examples
            more += examples * tokens * flops_per_token(shape)
        return replace(found, quantized=True, more_flops=more)


def check_pruning(pruning: PruningConfig, stage: TaskStage, context: Context) -> None:
    """Check that the student loses something, and can, by a provider that is there, in a stage's steps.

    Raises:
        ValueError: If not.
    """
    if pruning.uses_inc:
        check_extra("inc", f"saliency: {pruning.saliency}")
    check_prunable(context.shapes.student, heads=pruning.removes_heads, layers=pruning.layer_sparsity > 0)
    check_removal(_prepared(stage, context), pruning)
    steps = context.estimator.steps(stage, stage.text(context).examples)
    if pruning.uses_inc and steps:
        pruning_steps(pruning, steps)
    else:
        check_rounds(pruning, steps)


def check_schedules(pruning: PruningConfig, stage: Stage, context: Context) -> None:
    """Check that units go when their weights' grids let them: beside, or after, what quantises the student."""
    until = [*context.before(stage), stage]
    for quantize in (other for other in until if isinstance(other, Quantize)):
        check_schedule(_prepared(quantize, context), pruning, quantize)


def _prepared(stage: Stage, context: Context) -> PreTrainedModel:
    """Build the student without weights, with as many layers as it has when a stage begins."""
    config = unpruned(student_before(stage, context))
    with torch.device("meta"):
        return new_model(context.task.auto_class, config)


def _check_target_size(student: PreTrainedModel, stage: Quantize) -> None:
    """Refuse what no precisions can meet."""
    assert stage.target_size_mb is not None  # noqa: S101 - the caller's check
    least = least_bytes(student, stage)
    if 1e6 * stage.target_size_mb < least:
        raise ValueError(
            f"target_size_mb: {stage.target_size_mb:g}; allowed: above {least / 1e6:.2f}, what weights and scales "
            "alone take in INT4"
        )
