"""`DistillationTrainer`: a `transformers.Trainer` whose loss compares a student with its teacher."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from transformers import AutoConfig, PreTrainedModel, PreTrainedTokenizerBase, TrainingArguments
from transformers.trainer_utils import EvalLoopOutput, TrainOutput, has_length

from edgemin_hf.distillation.base import DistillationConfig, Objective
from edgemin_hf.hub.card import check_card
from edgemin_hf.modeling.embedder_files import write_sentence_folder
from edgemin_hf.modeling.encoder import Encoder
from edgemin_hf.modeling.masters import to_float_masters
from edgemin_hf.modeling.surgery import cut_like
from edgemin_hf.modeling.tokenizers import fitted
from edgemin_hf.neural_compressor.qat import own_settings
from edgemin_hf.pruning.config import PruningConfig
from edgemin_hf.quantization.config import QuantizationConfig
from edgemin_hf.quantization.range_training import RangeFreezer
from edgemin_hf.runtime.artefact import CARD
from edgemin_hf.training.arguments import check_arguments, check_objectives, methods_of
from edgemin_hf.training.card import TrainingFacts, render_training_card
from edgemin_hf.training.checks import check_resumed, check_weights, learns_labels
from edgemin_hf.training.parameter_groups import learning_rates, split_by_rate
from edgemin_hf.training.pruning import StudentPruning, check_pruning
from edgemin_hf.training.quantization import StudentQuantization
from edgemin_hf.training.record import remember_training, training_record, trainings_before
from edgemin_hf.training.student_forward import projections_in_model
from edgemin_hf.training.teacher import check_head, load_teacher
from edgemin_hf.training.term_trainer import TermTrainer
from edgemin_hf.training.tokens import keep_tokens_unwritten
from edgemin_hf.utils.atomic_files import write_atomic
from edgemin_hf.utils.edgemin_config import EdgeminConfig
from edgemin_hf.utils.processes import own_share, share_from_first

if TYPE_CHECKING:
    from edgemin_hf.neural_compressor.guest import QuantizationAwareTrainingConfig, WeightPruningConfig


class DistillationTrainer(TermTrainer):
    """Train a student by the summed objectives of one or several distillation methods.

    In every other respect a `transformers.Trainer`: accumulation, mixed precision, callbacks, checkpoints and
    `resume_from_checkpoint`, evaluation. Every loss term is logged, and evaluation adds them to its metrics. Inputs
    named `teacher_logits` stand instead of the teacher's forward pass for task distillation. With
    `group_by_length`, batches hold examples of like length, in an order that depends on seed and epoch alone.

    Args:
        model: The student.
        teacher_model: The teacher; it is frozen and set to evaluation mode, and never wrapped or saved. None where no
            objective needs it. A folder or a Hub id is loaded in float32, with the student's kind of head, or a masked
            language model's for a method that needs one.
        args: As `transformers.Trainer`.
        distillation_config: One method's settings, or a list whose loss terms are summed.
        pruning_config: If given, `train` removes heads, neurons and layers by their saliency on the training data:
            before the first step, or in masked steps on the way. Neural Compressor's own configuration is taken too.
        quantization_config: If given, linear layers and embeddings are swapped for fake-quantised ones at once, and
            `train` first calibrates the ranges of their inputs on the training data, which INT8 needs. Neural
            Compressor's own configuration is taken too.
        head_learning_rate: Learning rate of the student's head; None takes that of the last layer.
        layer_learning_rate_decay: What the learning rate is multiplied by for each layer further down.
        **kwargs: As `transformers.Trainer`.

    Attributes:
        record: What `edgemin_config.json` will tell of this training.

    Raises:
        ValueError: If student, teacher and settings do not fit together.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from transformers import BertConfig, BertForSequenceClassification, TrainingArguments
        >>> from edgemin_hf import DistillationTrainer, PruningConfig, TaskDistillationConfig, create_student
        >>> shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
        >>> teacher = BertForSequenceClassification(BertConfig(vocab_size=50, **shape))
        >>> rows = [{"input_ids": [2, 7, 8, 3], "labels": 0}, {"input_ids": [2, 9, 6, 3], "labels": 1}]
        >>> with TemporaryDirectory() as folder:
        ...     trainer = DistillationTrainer(
        ...         model=create_student(teacher, num_hidden_layers=1),
        ...         teacher_model=teacher,
        ...         args=TrainingArguments(folder, max_steps=2, report_to=[], use_cpu=True, disable_tqdm=True),
        ...         distillation_config=TaskDistillationConfig(temperature=2.0),
        ...         pruning_config=PruningConfig(ffn_sparsity=0.5),
        ...         train_dataset=rows,
        ...     )
        ...     trainer.train().global_step
        {'train_runtime': ...}
        2
        >>> trainer.model.config.intermediate_size
        32
    """

    def __init__(
        self,
        model: PreTrainedModel,
        teacher_model: PreTrainedModel | str | Path | None = None,
        args: TrainingArguments | None = None,
        *,
        distillation_config: DistillationConfig | Sequence[DistillationConfig],
        pruning_config: PruningConfig | WeightPruningConfig | None = None,
        quantization_config: QuantizationConfig | QuantizationAwareTrainingConfig | None = None,
        head_learning_rate: float | None = None,
        layer_learning_rate_decay: float = 1.0,
        **kwargs: object,
    ) -> None:
        configs = methods_of(distillation_config)
        args = TrainingArguments("tmp_trainer") if args is None else args
        keep_tokens_unwritten(args)
        teacher = load_teacher(teacher_model, model, configs)
        settings = None if quantization_config is None else own_settings(quantization_config)
        check_arguments(model, teacher, args, kwargs, pruning_config, settings)
        to_float_masters(model)
        if isinstance(tokenizer := kwargs.get("processing_class"), PreTrainedTokenizerBase):
            kwargs["processing_class"] = fitted(tokenizer, model.config)
        compared = Encoder(model), None if teacher is None else Encoder(teacher)
        objectives: list[Objective] = [config.objective(*compared) for config in configs]
        check_objectives(model, teacher, args, objectives)
        if teacher is not teacher_model:
            check_head(teacher, objectives)
        if pruning_config is not None:
            activations = {activation for objective in objectives for activation in objective.student_activations}
            check_pruning(model, pruning_config, activations, settings)
        self.record = training_record(configs, pruning_config, settings)
        self._trainings_before, self._remembered = trainings_before(model), False
        self.quantization: StudentQuantization | None = None
        if quantization_config is not None:
            pruned = pruning_config is not None
            self.quantization = StudentQuantization(model, quantization_config, args, pruned=pruned)
        self.pruning = None if pruning_config is None else StudentPruning(self, pruning_config)
        reads_labels = any(map(learns_labels, configs))
        super().__init__(objectives, teacher, reads_labels=reads_labels, model=model, args=args, **kwargs)
        self._head_learning_rate, self._layer_decay = head_learning_rate, layer_learning_rate_decay
        if settings is not None:
            self.add_callback(RangeFreezer(settings))
        self._share_student()

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs: object) -> TrainOutput:
        """Prepare the student, then train as `transformers.Trainer` does; a resumed run takes up the checkpoint's.

        Its steps take the rows that they would have taken without the interruption, also where as many are divided
        otherwise into batches, accumulation and processes.

        Raises:
            ValueError: If a checkpoint's steps took other rows, or can't be gone on from; before anything is done.
        """
        checkpoint = self.plan_rows(resume_from_checkpoint)
        self._gradients_checked = False
        if checkpoint is not None:
            saved = AutoConfig.from_pretrained(checkpoint)
            check_resumed(checkpoint, saved, self.model.config, prunes=self.pruning is not None)
            cut_like(self.model, saved)
            if self.quantization is not None:
                self.quantization.calibrated = True
            if self.pruning is not None:
                self.pruning.resume()
        else:
            self.prepare()
        gradually = nullcontext() if self.pruning is None else self.pruning.gradually(checkpoint)
        quantized = nullcontext() if self.quantization is None else self.quantization.training()
        resumed = None if checkpoint is None else str(checkpoint)
        with projections_in_model(self.model, self._projections), quantized, gradually:
            output: TrainOutput = super().train(resume_from_checkpoint=resumed, **kwargs)
        check_weights(self.model)
        if not self._remembered:
            remember_training(self.model, self.record)
            self._remembered = True
        return output

    def create_optimizer(self, *args: nn.Module | None) -> torch.optim.Optimizer:
        """Create the optimizer as `Trainer` does, with groups for learned ranges and by learning rate."""
        ranges = self.quantization is not None and self.quantization.learns_ranges
        if ranges:
            self.optimizer = None  # that of an earlier training would not know the parameters of this one
        new = self.optimizer is None
        optimizer: torch.optim.Optimizer = super().create_optimizer(*args)
        head, decay = self._head_learning_rate, self._layer_decay
        if new and not (head is None and decay == 1):
            split_by_rate(optimizer, self.model, learning_rates(self.model, self.args.learning_rate, head, decay))
        if ranges and self.quantization is not None:
            self.quantization.place_ranges(optimizer)
        return optimizer

    def prepare(self) -> None:
        """Prune the student and calibrate its input ranges, where that is asked for and was not done before.

        `train` does it; call it to look at the student as it is before the first step.
        """
        # First the ranges: without them a fake-quantised model passes nothing on, and no saliency could be measured.
        if self.quantization is not None:
            self.quantization.calibrate(self._batches)
        if self.pruning is not None:
            self.pruning.one_shot(self._batches, self.loss_of)
        self._share_student()

    def _share_student(self) -> None:
        """Let all processes have the first one's student, and projections, where each holds them complete."""
        if not (self.is_fsdp_enabled or self.is_deepspeed_enabled):
            own = [self.model] if self._projections is None else [self.model, self._projections]
            share_from_first("model: the student's tensors", own)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save as `Trainer` does, and beside it how the model was made, and what a provider adds."""
        check_weights(self.model)
        super().save_model(output_dir, _internal_call)
        folder = output_dir or str(self.args.output_dir)
        if self.args.should_save:
            EdgeminConfig(trainings=[*self._trainings_before, self.record]).save_pretrained(folder)
            write_sentence_folder(self.model, Path(folder))
        if self.pruning is not None:
            self.pruning.save(folder)
        if self.quantization is not None and self.args.should_save:
            self.quantization.save(folder)

    def create_model_card(
        self,
        language: str | None = None,
        license: str | None = None,
        tags: str | Sequence[str] | None = None,
        model_name: str | None = None,
        dataset: str | Sequence[str] | None = None,
        **others: object,
    ) -> None:
        """Write our card into `args.output_dir`, where `Trainer` would write its own; `push_to_hub` pushes it.

        Args:
            language: Code of the language; None takes what the teacher's card tells.
            license: Likewise; without either it is "unknown".
            tags: Further tags.
            model_name: The model's name; None takes that of `output_dir`.
            dataset: Hub ids of datasets; None takes what the teacher's card tells.
            **others: What else `Trainer` takes, which the card has no place for.

        Raises:
            ValueError: If the Hub would refuse the card.
        """
        if not self.is_world_process_zero():
            return
        folder = Path(str(self.args.output_dir))
        name = model_name or folder.absolute().name
        card = render_training_card(
            TrainingFacts(
                name=name,
                repo_id=self.hub_model_id or str(self.args.hub_model_id or f"your-name/{name}"),
                model=self.model,
                teacher=None if self.teacher_model is None else self.teacher_model.name_or_path or None,
                trainings=[*self._trainings_before, self.record],
                logs=self.state.log_history,
                languages=_listed(language),
                licence=license,
                datasets=_listed(dataset),
                tags=_listed(tags),
            )
        )
        check_card(card)
        write_atomic(folder / CARD, card)

    def _batches(self, examples: int) -> Iterator[dict[str, Tensor]]:
        """Yield training batches, on the device, that hold so many examples over all processes, or all there are."""
        if has_length(self.train_dataset):  # else some would be repeated, to give all processes as many
            examples = min(examples, len(self.train_dataset))
        return map(self._prepare_inputs, own_share(self.get_train_dataloader(), examples))

    def training_step(self, *args: object, **kwargs: object) -> Tensor:
        """Run a batch forward and backward as `Trainer` does; units that are to go are scored by it."""
        loss: Tensor = super().training_step(*args, **kwargs)
        if self.pruning is not None:
            self.pruning.after_backward()
        return loss

    def watch_loss(self, loss: Tensor, rows: int) -> None:
        """Let units that are to go be scored by it."""
        if self.pruning is not None:
            self.pruning.watch(loss, rows)

    def evaluation_loop(self, *args: object, **kwargs: object) -> EvalLoopOutput:
        """Evaluate as `Trainer` does, with calibrated ranges, and add the mean of every loss term to the metrics."""
        if self.quantization is not None:
            self.quantization.calibrate(self._batches)
        return super().evaluation_loop(*args, **kwargs)


def _listed(given: str | Sequence[str] | None) -> list[str]:
    return [] if given is None else [given] if isinstance(given, str) else list(given)
