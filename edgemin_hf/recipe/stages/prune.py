"""The stage `prune`: heads, neurons and layers of the student go, and it is distilled again."""

from __future__ import annotations

import copy
from typing import ClassVar, Literal

from pydantic.dataclasses import dataclass
from transformers import PretrainedConfig, PreTrainedModel

from edgemin_hf.modeling.families import family_of
from edgemin_hf.pruning.config import PruningConfig
from edgemin_hf.recipe.context import Context
from edgemin_hf.recipe.schema import STRICT, Product
from edgemin_hf.recipe.stages.quantize import check_pruning, check_schedules
from edgemin_hf.recipe.stages.training import TaskStage
from edgemin_hf.recipe.train import Parts


@dataclass(config=STRICT)
class Prune(TaskStage, PruningConfig):
    """Remove heads, feed-forward neurons and layers of the student, and distil again. See `PruningConfig`.

    With `max_steps: 0` the student is pruned and not trained.

    Example:
        >>> from transformers import BertConfig
        >>> from edgemin_hf.recipe.stages import Prune
        >>> Prune(ffn_sparsity=0.5).reshaped(BertConfig()).intermediate_size
        1536
    """

    stage: Literal["prune"] = "prune"
    hub_tag: ClassVar[str | None] = "pruning"
    leaves: ClassVar[tuple[Product, ...]] = (Product.STUDENT, Product.TASK_STUDENT, Product.PRUNED)
    not_after: ClassVar[tuple[Product, ...]] = (Product.VOCABULARY, Product.GRAPHS)
    least_steps: ClassVar[int] = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        PruningConfig.__post_init__(self)
        if self.max_steps == 0 and self.schedule != "one_shot":
            raise ValueError(f"max_steps: 0 with schedule {self.schedule}; allowed: 1 or more, or schedule one_shot")

    def parts(self, context: Context, model: PreTrainedModel | None = None) -> Parts:
        """Return what its trainer is made of. See `TrainingStage.parts`."""
        parts = super().parts(context, model)
        parts.pruning = self
        return parts

    def check(self, context: Context) -> None:
        """Check that the student can lose such units, when they are to go."""
        super().check(context)
        check_pruning(self, self, context)
        check_schedules(self, self, context)

    def reshaped(self, student: PretrainedConfig) -> PretrainedConfig:
        """Return the configuration of what it leaves.

        Heads are left as they are, and so is what a budget will choose: a configuration's numbers can't tell it.
        """
        pruned, family = copy.deepcopy(student), family_of(student)
        setattr(pruned, family.ffn_width, self.kept_neurons(getattr(student, family.ffn_width)))
        pruned.num_hidden_layers = self.kept_layers(student.num_hidden_layers)
        return pruned
