"""Whether a model got the weights that it is made of: what `from_pretrained` only warns about is an error here.

`from_pretrained` draws at random what a checkpoint lacks, or brings in another shape, and leaves out what the model has
no place for. Of a head that is what fine-tuning wants, and it is told; of an encoder it never is.
"""

from __future__ import annotations

import copy
import logging
import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from accelerate import init_empty_weights
from transformers import PretrainedConfig, PreTrainedModel

from edgemin_hf.utils.weight_files import Shapes, WeightsError, names_of

logger = logging.getLogger(__name__)

LoadingInfo = Mapping[str, Iterable[str | tuple[object, ...]]]
"""What `from_pretrained(output_loading_info=True)` tells: names, or with transformers 5 names with their shapes."""


class Report(NamedTuple):
    """What a checkpoint does not bring.

    Attributes:
        missing: Names of the model's tensors that it lacks.
        mismatched: Names of those that it has in another shape.
        unexpected: Names of its tensors that the model has no place for.
    """

    missing: list[str]
    mismatched: list[str]
    unexpected: list[str]

    @classmethod
    def of(cls, info: LoadingInfo) -> Report:
        """Read what `from_pretrained` tells."""
        kinds = (info["missing_keys"], info["mismatched_keys"], info["unexpected_keys"])
        return cls(*(sorted(str(key if isinstance(key, str) else key[0]) for key in keys) for keys in kinds))

    @classmethod
    def by_names(cls, model: PreTrainedModel, held: Shapes) -> Report:
        """Compare a model, which may be without weights, with the tensors of a file, as `from_pretrained` names them.

        A base model's tensors are those of a model with a head, whose names begin with the base's.
        """
        prefix = f"{model.base_model_prefix}."
        inside, wanted = any(name.startswith(prefix) for name in held), hasattr(model, model.base_model_prefix)
        shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
        found = {}
        for name, shape in held.items():
            ours = _OLD.sub(lambda old: _NEW[old.group()], name)
            if inside != wanted:
                ours = ours.removeprefix(prefix) if inside else prefix + ours
            found[ours] = shape
        return cls(
            sorted(shapes.keys() - found.keys()),
            sorted(name for name, shape in shapes.items() if found.get(name, shape) != shape),
            sorted(found.keys() - shapes.keys()),
        )


def check_encoder(model: PreTrainedModel, report: Report, name: str, held: Shapes) -> None:
    """Check that an encoder got all of its weights, and that none of its checkpoint's were left over.

    A pooler may be missing: a masked language model has none.

    Args:
        model: The model, loaded.
        report: What its checkpoint does not bring.
        name: The checkpoint's name, to tell.
        held: The shapes of the checkpoint's tensors, where they are known.

    Raises:
        WeightsError: If not; one line that names tensors and shapes.
    """
    inside = [key for key in report.mismatched if _is_encoder(model, key)]
    if inside:
        shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
        told = [f"{key} {_held(model, key, held)}, by its config {shapes[key]}" for key in inside]
        raise WeightsError(f"{name}: weights of another shape than its config: {names_of(told)}")
    inside = [key for key in report.missing if _is_encoder(model, key)]
    if inside:
        found = f"; it holds {names_of(sorted(held))}" if held else ""
        raise WeightsError(f"{name} lacks weights of a {model.config.model_type}'s encoder: {names_of(inside)}{found}")
    prefix = f"{model.base_model_prefix}."
    patterns = {_pattern(key.removeprefix(prefix)) for key in model.state_dict()}
    layers = [key for key in report.unexpected if _LAYER.search(key) and _pattern(key.removeprefix(prefix)) in patterns]
    if layers:
        raise WeightsError(
            f"{name} holds layers that its config has none of: {names_of(layers)}; its config says "
            f"{model.config.num_hidden_layers}"
        )


def head_to_replace(model: PreTrainedModel, report: Report, *, other_task: bool) -> list[str]:
    """Return the names of the tensors of a head that its checkpoint brings, but for other labels or another task.

    Args:
        model: The model, loaded.
        report: What its checkpoint does not bring: that is new already.
        other_task: Whether the checkpoint's head is of another kind of task: then all of it goes, else what has a row a
            label.
    """
    new = {*report.missing, *report.mismatched}
    names = [name for name, _ in model.named_parameters() if is_head(model, name) and name not in new]
    if other_task:
        return names
    with_labels = _label_tensors(model)
    return [name for name in names if name in with_labels]


def same_labels(saved: PretrainedConfig, wanted: PretrainedConfig) -> bool:
    """Return whether a head's labels are those that are wanted; labels without names of their own may be any."""
    names = [saved.id2label[index] for index in sorted(saved.id2label)]
    if len(names) != len(wanted.id2label):
        return False
    unnamed = all(re.fullmatch(r"LABEL_\d+", str(name)) for name in names)
    return unnamed or names == [wanted.id2label[index] for index in sorted(wanted.id2label)]


def not_finite(model: PreTrainedModel) -> str:
    """Return the names of the weights that are NaN or infinite, some of them; "" where none is."""
    return names_of([name for name, value in model.named_parameters() if not value.isfinite().all()])


def tell_new(name: str, new: list[str], replaced: list[str]) -> None:
    """Tell of tensors that are new, and of those among them that the checkpoint had for other labels."""
    if replaced:
        logger.warning("%s: its head is of other labels or another task, and is replaced: %s", name, names_of(replaced))
    if new:
        logger.warning("%s has no %s: new, with random weights", name, names_of(new))


_OLD = re.compile(r"(?<=LayerNorm\.)(gamma|beta)$")
_NEW = {"gamma": "weight", "beta": "bias"}
"""What the first BERTs called the weights of their norms."""
_LAYER = re.compile(r"\.\d+\.")


def _pattern(name: str) -> str:
    return _LAYER.sub(".N.", name)


def is_head(model: PreTrainedModel, name: str) -> bool:
    """Return whether a tensor is the head's: neither the encoder's nor its pooler's."""
    return not _is_encoder(model, name) and "pooler" not in name.split(".")


def _is_encoder(model: PreTrainedModel, name: str) -> bool:
    prefix = model.base_model_prefix
    inside = name.startswith(f"{prefix}.") if hasattr(model, prefix) else True
    return inside and "pooler" not in name.split(".")


def _held(model: PreTrainedModel, name: str, held: Shapes) -> str:
    bare = name.removeprefix(f"{model.base_model_prefix}.")
    shape = next((held[key] for key in (name, bare, f"{model.base_model_prefix}.{bare}") if key in held), None)
    return "has another shape" if shape is None else f"is {shape}"


def _label_tensors(model: PreTrainedModel) -> set[str]:
    """Return the names of the tensors with a row a label: those that another number of labels would change."""
    config = copy.deepcopy(model.config)
    config.num_labels += 1
    with init_empty_weights():  # `torch.device("meta")` has no `nonzero`, which the removal of heads takes
        larger = type(model)(config).state_dict()
    return {name for name, value in model.state_dict().items() if larger[name].shape != value.shape}
