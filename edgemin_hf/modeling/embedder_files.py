"""The folder of a sentence encoder, as sentence-transformers reads and writes it: modules beside its weights."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import cast, get_args

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, PretrainedConfig, PreTrainedModel

from edgemin_hf.modeling.embedder import (
    EMBEDDER,
    SENTENCE,
    DenseActivation,
    SentenceHead,
    SentencePooling,
    sentence_embedder,
)
from edgemin_hf.modeling.sentence_modules import (
    MODULES,
    SENTENCE_FILES,
    Files,
    find_file,
    is_object,
    known_files,
    pooling_mode,
    read_json,
    usage_files,
    write_json,
    write_sentence_modules,
)
from edgemin_hf.utils.weight_files import WEIGHTS, WeightsError

_ORDER = ("Transformer", "Pooling", "Dense", "Normalize")
"""The modules that are read, in the order that they must stand in; the last two need not be there."""
_PROJECTION = "projection."
_PROMPTS = "config_sentence_transformers.json"
_USAGE = "sentence_bert_config.json"
_ACTIVATIONS: dict[DenseActivation, str] = {
    "identity": "torch.nn.modules.linear.Identity",
    "tanh": "torch.nn.modules.activation.Tanh",
}


def read_sentence_head(source: str) -> SentenceHead | None:
    """Read by which modules sentence-transformers makes vectors of an encoder's tokens.

    Args:
        source: Folder or Hub id.

    Returns:
        What they say; None where there are none.

    Raises:
        ValueError: If they are none that a model here can be made of.
    """
    modules = _modules_of(source)
    if modules is None:
        return None
    paths = dict(modules)
    kinds = [kind for kind in _ORDER if kind in paths]
    if list(paths) != kinds or len(paths) < len(modules) or kinds[:2] != list(_ORDER[:2]):
        found = ", ".join(kind for kind, _ in modules)
        raise ValueError(f"{source}, of the modules {found}; allowed: Transformer, Pooling, then Dense or Normalize")
    pooling = _config(source, paths["Pooling"])
    mode = pooling_mode(pooling) or "mean"
    if mode not in get_args(SentencePooling) or not pooling.get("include_prompt", True):
        told = mode if pooling.get("include_prompt", True) else f"{mode} without the prompt's tokens"
        raise ValueError(f"{source}, whose pooling is {told}; allowed: {', '.join(get_args(SentencePooling))}")
    dense, activation = _read_dense_config(source, paths["Dense"]) if "Dense" in paths else (None, "identity")
    return SentenceHead(cast(SentencePooling, mode), dense, cast(DenseActivation, activation), "Normalize" in paths)


def _modules_of(source: str) -> list[tuple[str, str]] | None:
    """Return the kind and the path of each module that is listed; of a stranger's all of its type, which is no kind."""
    modules = read_json(source, MODULES)
    if not isinstance(modules, list):
        return None
    listed = list[tuple[str, str]]()
    for module in modules:
        named, path = (module.get("type"), module.get("path")) if is_object(module) else (None, None)
        package, _, kind = str(named).rpartition(".")
        if not isinstance(path, str):
            listed.append((f"{named} without a path", ""))
        else:
            listed.append((kind if package.startswith("sentence_transformers.") else str(named), path))
    return listed


def _config(source: str, path: str) -> Files:
    content = read_json(source, f"{path}/config.json")
    if not is_object(content):
        raise ValueError(f"{source}, which holds no {path}/config.json; allowed: a folder with all that it lists")
    return content


def _read_dense_config(source: str, path: str) -> tuple[int, str]:
    config = _config(source, path)
    given = str(config.get("activation_function", _ACTIVATIONS["tanh"]))
    activation = next((name for name, told in _ACTIVATIONS.items() if told == given), None)
    if activation is None:
        raise ValueError(f"{source}, with {given} in {path}/config.json; allowed: {', '.join(_ACTIVATIONS.values())}")
    if not isinstance(width := config.get("out_features"), int):
        raise ValueError(f"{source}, with out_features {width} in {path}/config.json; allowed: a number")
    return width, activation


def set_sentence_head(config: PretrainedConfig, source: str, head: object = None) -> None:
    """Write into the configuration of a checkpoint how its tokens become vectors, if it does not say so itself.

    Args:
        config: The configuration.
        source: Folder or Hub id of the checkpoint.
        head: The fields of `SentenceHead` where that is decided; None leaves it to the checkpoint.

    Raises:
        ValueError: As `read_sentence_head`.
    """
    if head is not None:
        setattr(config, SENTENCE, head)
        return
    if hasattr(config, SENTENCE) or (found := read_sentence_head(source)) is None:
        return
    setattr(config, SENTENCE, found._asdict())
    setattr(config, SENTENCE_FILES, usage_files(source))
    # By its modules it is one already, whatever class of `transformers` its configuration names.
    plain = AutoModelForSequenceClassification._model_mapping[type(config)]
    config.architectures = [sentence_embedder(plain).__name__]


def head_of(config: PretrainedConfig) -> dict[str, object]:
    """Return what tells a checkpoint the head of another model: an argument of `load_pruned`; none without one."""
    return {SENTENCE: getattr(config, SENTENCE)} if hasattr(config, SENTENCE) else {}


def keep_sentence_files(student: PretrainedConfig, teacher: PretrainedConfig) -> None:
    """Let texts be given to a student as they are to its teacher: cut alike, and with the same prompts."""
    if hasattr(teacher, SENTENCE) and hasattr(teacher, SENTENCE_FILES):
        setattr(student, SENTENCE_FILES, getattr(teacher, SENTENCE_FILES))


@torch.no_grad()
def read_dense(model: PreTrainedModel, source: str, missing: Collection[str], *, given: bool = False) -> list[str]:
    """Fill a model's dense layer from the file that sentence-transformers keeps it in.

    Args:
        model: The model.
        source: Folder or Hub id of its checkpoint.
        missing: Names of the tensors that the checkpoint's own weights lack.
        given: Whether the model's head was decided elsewhere, so that the checkpoint may hold another layer.

    Returns:
        The names of those that were found.

    Raises:
        WeightsError: If the layer has another shape there, or lies there as pickles alone, and is to be read.
    """
    names = [name for name in missing if name.startswith(_PROJECTION)]
    modules = _modules_of(source) if names and type(model).__name__.endswith(EMBEDDER) else None
    path = dict(modules or []).get("Dense")
    if path is None:
        return []
    file = find_file(source, f"{path}/{WEIGHTS}")
    if file is None:
        if given:
            return []
        raise WeightsError(f"{source} holds no {path}/{WEIGHTS}: only safetensors weights are loaded")
    held, layer = load_file(file), model.projection
    weight, bias = held.get("linear.weight"), held.get("linear.bias")
    if weight is None or weight.shape != layer.weight.shape:
        if given:
            return []
        told = "none" if weight is None else tuple(weight.shape)
        raise WeightsError(f"{file}: linear.weight {told}, by its config {tuple(layer.weight.shape)}")
    layer.weight.copy_(weight)
    layer.bias.copy_(torch.zeros_like(layer.bias) if bias is None else bias)
    return names


def write_sentence_folder(model: PreTrainedModel, folder: Path) -> bool:
    """Write what sentence-transformers reads beside a model's weights, which lie in the folder already.

    Args:
        model: A sentence encoder, or a model that stands in for one (`write_sentence_modules`).
        folder: Folder of its weights.

    Returns:
        As `write_sentence_modules`.
    """
    if not type(model).__name__.endswith(EMBEDDER):
        return write_sentence_modules(model, folder)
    head, hidden = SentenceHead.of(model.config), model.config.hidden_size
    usage = cast(Files, getattr(model.config, SENTENCE_FILES, {}))
    kinds = [kind for kind, there in zip(_ORDER, (1, 1, head.dense, head.normalized), strict=True) if there]
    paths = {kind: f"{number}_{kind}" if number else "" for number, kind in enumerate(kinds)}
    modules = [
        {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for number, (kind, path) in enumerate(paths.items())
    ]
    modes = {"cls": "cls_token", "mean": "mean_tokens", "max": "max_tokens"}
    files: dict[str, object] = known_files(usage) | {MODULES: modules}
    # As releases 2 to 5 of sentence-transformers read it.
    files[f"{paths['Pooling']}/config.json"] = {"word_embedding_dimension": hidden} | {
        f"pooling_mode_{mode}": name == head.pooling for name, mode in modes.items()
    }
    if head.dense is not None:
        _write_dense(head, hidden, folder, paths["Dense"])
    for name, content in files.items():
        write_json(folder / name, content)
    if head.normalized:
        (folder / paths["Normalize"]).mkdir(exist_ok=True)
    return True


def _write_dense(head: SentenceHead, hidden: int, folder: Path, path: str) -> None:
    """Write the dense layer a second time, as a module of its own."""
    activation = _ACTIVATIONS[head.activation]
    config = {"in_features": hidden, "out_features": head.dense, "bias": True, "activation_function": activation}
    write_json(folder / path / "config.json", config)
    with safe_open(folder / WEIGHTS, "pt") as weights:
        layer = {name: weights.get_tensor(f"{_PROJECTION}{name}").contiguous() for name in ("weight", "bias")}
    save_file({f"linear.{name}": value for name, value in layer.items()}, folder / path / WEIGHTS)


def prompts_of(config: PretrainedConfig) -> Mapping[str, str]:
    """Return the prompts of a sentence encoder by name, the default one under "": what stands before every text."""
    told = cast(Files, getattr(config, SENTENCE_FILES, {}).get(_PROMPTS, {}))
    prompts = {name: text for name, text in cast(dict[str, str], told.get("prompts") or {}).items() if text}
    default = str(told.get("default_prompt_name"))
    return prompts | ({"": prompts[default]} if default in prompts else {})


def set_default_prompt(config: PretrainedConfig, prompt: str) -> None:
    """Make a prompt the default one in a sentence encoder's configuration, under the name that it has there."""
    prompts = prompts_of(config)
    if prompt == prompts.get("", ""):
        return
    files = cast(Files, getattr(config, SENTENCE_FILES, {}))
    told = cast(Files, files.get(_PROMPTS, {}))
    name = next((name for name, text in prompts.items() if text == prompt and name), "default")
    named = cast(dict[str, str], told.get("prompts") or {}) | {name: prompt}
    written = {**told, "prompts": named, "default_prompt_name": name}
    setattr(config, SENTENCE_FILES, {**files, _PROMPTS: written})


def set_longest_text(config: PretrainedConfig, tokens: int) -> None:
    """Have a sentence encoder's texts cut after some tokens, and given to its tokenizer as they are."""
    files = cast(Files, getattr(config, SENTENCE_FILES, {}))
    told = cast(Files, files.get(_USAGE, {}))
    written = {**told, "max_seq_length": tokens, "do_lower_case": False}
    setattr(config, SENTENCE_FILES, {**files, _USAGE: written})
