"""Post-training quantisation by module-wise reconstruction: a few hundred unlabelled texts, no end-to-end training.

MREM (Bai et al. 2022, arXiv 2109.15082): the model is divided into modules of consecutive layers, and each module of
the quantised model is trained to reproduce what the full-precision module puts out, min || f_q(x_q) - f(x) ||^2 over
weights and step sizes. This is the sequential form, MREM-S: a module is trained on what the quantised modules before it
give. The parallel form, MREM-P, trains the modules on several devices at once and gains nothing on one CPU. Its teacher
forcing is here too: a module's first steps may mix the full-precision model's hidden states into its input,
lambda x + (1 - lambda) x_q, where lambda falls linearly to 0. Rates and steps, the separate module of the head, and
that a module which does not gain keeps what it had, are ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple, NoReturn

import torch
from torch import Tensor, nn
from tqdm import tqdm
from transformers import PreTrainedModel

from edgemin_hf.data.batches import batches_of_like_length
from edgemin_hf.modeling.encoder import EMBEDDINGS, Encoder
from edgemin_hf.modeling.hooks import PartialForward
from edgemin_hf.quantization.range_training import learned_ranges
from edgemin_hf.utils.settings import Settings

Batch = Mapping[str, Tensor]


@dataclass
class ReconstructionConfig(Settings):
    """Settings of module-wise reconstruction.

    Attributes:
        modules: Number of modules that the layers are divided into, as evenly as can be: at most one a layer, and one
            where layers share their weights. The embeddings belong to the first; what stands after the last layer is
            a module of its own, which reproduces the logits.
        examples: Largest number of examples that are used.
        batch_size: Examples of a step; examples of like length go together.
        steps: Training steps of each module.
        learning_rate: First learning rate of the weights (Adam); it falls linearly to 0.
        range_learning_rate: Likewise for the ends of each input's range, as factors of the calibrated ones.
        teacher_forcing: Share of a module's steps over which its input turns from the full-precision model's into the
            quantised model's.
        seed: Seed of the order of the batches.

    Example:
        >>> from edgemin_hf.quantization import ReconstructionConfig
        >>> ReconstructionConfig(modules=2, steps=100).to_dict()["teacher_forcing"]
        0.0
    """

    modules: int = 4
    examples: int = 512
    batch_size: int = 16
    steps: int = 250
    learning_rate: float = 1e-4
    range_learning_rate: float = 1e-3
    teacher_forcing: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("modules", "examples", "batch_size", "steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: {getattr(self, name)}; allowed: 1 or more")
        for name in ("learning_rate", "range_learning_rate"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name}: {getattr(self, name)}; allowed: 0 or more")
        if not 0 <= self.teacher_forcing <= 1:
            raise ValueError(f"teacher_forcing: {self.teacher_forcing}; allowed: 0 to 1")


class Reconstruction(NamedTuple):
    """What became of a module.

    Attributes:
        name: Its layers, such as "layers 0-2", or "head".
        before: Mean squared error of its output before it was trained, by the mean square of the teacher's output.
        after: The same afterwards, never larger: a module that did not gain keeps what it had.

    Example:
        >>> from edgemin_hf.quantization import Reconstruction
        >>> outcome = Reconstruction("layers 0-2", before=0.04, after=0.01)
        >>> outcome.after <= outcome.before
        True
    """

    name: str
    before: float
    after: float


def reconstruct(
    model: PreTrainedModel, teacher: PreTrainedModel, batches: Iterable[Batch], config: ReconstructionConfig
) -> list[Reconstruction]:
    """Train, in place, one module after another of a quantised model to compute what the teacher's computes.

    Weights, biases, LayerNorms and the ranges of the inputs are trained, also frozen ones: a copy of a frozen teacher
    is to learn too. The scales of the weights follow their rows. What several modules share (tables of relative
    positions, tied decoders) stays as it is, or as its first module left it. All is done in evaluation mode: without
    dropout, and without ranges that move by observation.

    Args:
        model: The quantised model, calibrated: any modules with trainable weights.
        teacher: The model before it was quantised; it stays as it is.
        batches: Batches of inputs that both models take, with `attention_mask`; labels are not read. Their sizes and
            padding change nothing. Up to five hidden states of each token are kept in memory.
        config: The settings.

    Returns:
        The outcome of each module, in the order of the layers.

    Raises:
        ValueError: If the two models differ in class or shape, or there are no examples.

    Example:
        >>> import copy
        >>> import torch
        >>> from transformers import BertConfig, BertForSequenceClassification
        >>> from edgemin_hf import quantize
        >>> from edgemin_hf.quantization import ReconstructionConfig, reconstruct
        >>> shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
        >>> teacher = BertForSequenceClassification(BertConfig(vocab_size=50, **shape)).eval()
        >>> batch = {"input_ids": torch.tensor([[2, 7, 8, 3]]), "attention_mask": torch.ones(1, 4, dtype=torch.long)}
        >>> student = quantize(copy.deepcopy(teacher), dataloader=[batch])
        >>> outcomes = reconstruct(student, teacher, [batch], ReconstructionConfig(modules=1, steps=2))
        >>> [outcome.name for outcome in outcomes]
        ['layers 0-1', 'head']
    """
    _check(model, teacher)
    padding = model.config.pad_token_id or 0
    pieces = list(batches_of_like_length(batches, config.examples, config.batch_size, padding, model.device))
    if not pieces:
        raise ValueError("batches: no examples; allowed: 1 or more")
    modules = _modules(Encoder(model), config.modules)
    modes, wants = (model.training, teacher.training), [(p, p.requires_grad) for p in model.parameters()]
    model.eval().requires_grad_(False)
    teacher.eval()
    try:
        ours, theirs = PartialForward(model), PartialForward(teacher)
        inputs: list[Tensor | None] = [None] * len(pieces)
        forced = list(inputs)
        found = []
        with tqdm(total=len(modules) * config.steps, desc="Reconstruction", unit="step") as bar:
            for module in modules:
                with torch.no_grad():
                    targets = [theirs.run(*pair, module.start, module.end) for pair in zip(pieces, forced, strict=True)]
                data = _Data(pieces, inputs, forced, targets)
                outcome, inputs = _reconstruct_module(ours, module, data, config, bar)
                found.append(outcome)
                forced = list(targets)
    finally:
        model.train(modes[0])
        teacher.train(modes[1])
        for parameter, wanted in wants:
            parameter.requires_grad_(wanted)
    return found


@dataclass(frozen=True)
class _Module:
    """Layers `start` to `end`, without `end`; the head is what begins after the last layer."""

    name: str
    start: int
    end: int
    parts: Sequence[nn.Module]
    parameters: Sequence[nn.Parameter]


class _Data(NamedTuple):
    """For each batch: its inputs, the module's input by the quantised model and by the teacher, and its target."""

    batches: Sequence[Batch]
    inputs: Sequence[Tensor | None]
    forced: Sequence[Tensor | None]
    targets: Sequence[Tensor]


def _reconstruct_module(
    model: PartialForward, module: _Module, data: _Data, config: ReconstructionConfig, bar: tqdm[NoReturn]
) -> tuple[Reconstruction, list[Tensor | None]]:
    """Train a module; return what became of it, and its outputs, the next one's inputs."""
    size = _size(data).clamp(min=torch.finfo(torch.float32).tiny)
    kept = [(t, t.detach().clone()) for part in module.parts for t in (*part.parameters(), *part.buffers())]
    before, outputs = _measure(model, module, data, size)
    with learned_ranges(module.parts) as factors, _trained(module.parameters):
        groups = [
            {"params": list(module.parameters), "lr": config.learning_rate},
            {"params": factors, "lr": config.range_learning_rate},
        ]
        optimizer = torch.optim.Adam([group for group in groups if group["params"]])
        schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, config.steps)
        for step, index in enumerate(_order(len(data.batches), config)):
            forcing = max(1 - step / (config.teacher_forcing * config.steps), 0.0) if config.teacher_forcing else 0.0
            hidden, forced = data.inputs[index], data.forced[index]
            if hidden is not None and forced is not None:
                hidden = torch.lerp(hidden, forced, forcing)
            output = model.run(data.batches[index], hidden, module.start, module.end)
            loss = _error(output, data.targets[index], data.batches[index]["attention_mask"]) / size
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            bar.set_postfix_str(f"{module.name}, error {loss.item():.2e}", refresh=False)
            bar.update()
    after, trained = _measure(model, module, data, size)
    if not after < before:
        for tensor, value in kept:
            tensor.copy_(value)
        return Reconstruction(module.name, before, before), outputs
    return Reconstruction(module.name, before, after), trained


@contextmanager
def _trained(parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    for parameter in parameters:
        parameter.requires_grad_(True)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(False).grad = None


@torch.no_grad()
def _measure(model: PartialForward, module: _Module, data: _Data, size: Tensor) -> tuple[float, list[Tensor | None]]:
    """Return a module's error over all examples, and its outputs."""
    outputs: list[Tensor | None] = []
    total = torch.zeros_like(size)
    for batch, hidden, target in zip(data.batches, data.inputs, data.targets, strict=True):
        output = model.run(batch, hidden, module.start, module.end)
        total += len(target) * _error(output, target, batch["attention_mask"])
        outputs.append(output)
    return (total / sum(map(len, data.targets)) / size).item(), outputs


def _size(data: _Data) -> Tensor:
    """Mean square of the targets."""
    sums = [
        len(target) * _error(target, torch.zeros_like(target), batch["attention_mask"])
        for batch, target in zip(data.batches, data.targets, strict=True)
    ]
    return torch.stack(sums).sum() / sum(map(len, data.targets))


def _error(ours: Tensor, theirs: Tensor, mask: Tensor) -> Tensor:
    """Mean over examples of the mean over an example's own tokens: (batch, [length,] width) -> ()."""
    squared = (ours - theirs).float().square().mean(dim=-1)
    return ((squared * mask).sum(1) / mask.sum(1)).mean() if squared.ndim == 2 else squared.mean()


def _order(batches: int, config: ReconstructionConfig) -> Iterator[int]:
    """Yield the number of each step's batch: every batch once, in a random order, then again in another."""
    generator = torch.Generator().manual_seed(config.seed)
    drawn: list[int] = []
    for _ in range(config.steps):
        drawn = drawn or torch.randperm(batches, generator=generator).tolist()
        yield drawn.pop()


def _modules(encoder: Encoder, count: int) -> list[_Module]:
    """Divide a model into `count` modules of layers, and its head where there is something to train in one."""
    model, base, depth = encoder.model, encoder.base, encoder.config.num_hidden_layers
    of_layer = [PartialForward.parts_of(encoder, layer) for layer in range(depth)]
    count = 1 if encoder.shares_layers else min(count, depth)
    bounds = [depth * index // count for index in range(count + 1)]
    found: list[_Module] = []
    for start, end in pairwise(bounds):
        parts = [part for layer in of_layer[start:end] for part in layer]
        if start == 0:
            parts = [base.embeddings, *PartialForward.parts_of(encoder, EMBEDDINGS), *parts]
        name = f"layer {start}" if end - start == 1 else f"layers {start}-{end - 1}"
        found.append(_Module(name, start, end, parts, _own_parameters(parts)))
    if model is not base:
        pooler = getattr(base, "pooler", None)
        parts = [part for part in [pooler, *model.children()] if part is not None and part is not base]
        # A decoder tied to the embeddings is trained with them.
        others = {id(p) for p in base.parameters()} - {id(p) for p in ([] if pooler is None else pooler.parameters())}
        own = [parameter for parameter in _own_parameters(parts) if id(parameter) not in others]
        if own:  # a sentence encoder's may be pooling alone
            found.append(_Module("head", depth, depth + 1, parts, own))
    return found


def _own_parameters(parts: Sequence[nn.Module]) -> list[nn.Parameter]:
    return list({id(parameter): parameter for part in parts for parameter in part.parameters()}.values())


def _check(model: PreTrainedModel, teacher: PreTrainedModel) -> None:
    encoder, other = Encoder(model), Encoder(teacher)
    shape, expected = ((e.config.num_hidden_layers, e.config.hidden_size) for e in (encoder, other))
    if type(model) is not type(teacher) or shape != expected:
        raise ValueError(
            f"teacher: {type(teacher).__name__} of {expected[0]} x {expected[1]}; "
            f"allowed: the model before it was quantised, {type(model).__name__} of {shape[0]} x {shape[1]}"
        )
