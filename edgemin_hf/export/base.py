"""What a target is: one kind of file that a model is exported to.

A new target is a file beside this one and an entry in `edgemin_hf.export.onnx.TARGETS`; benchmark, report, card and
push learn of it from the manifest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from edgemin_hf.data.tables import Text
from edgemin_hf.export.manifest import ManifestEntry


@dataclass(frozen=True)
class TrainedModel:
    """What every target is made from.

    Attributes:
        model: The model as it was trained, perhaps with fake-quantised modules; targets leave it as it is.
        plain: The same in full precision, with plain modules, on the CPU; likewise.
        tokenizer: Its tokenizer.
        texts: Real texts, or pairs of texts, on which what is written is checked against the PyTorch model.
        max_length: Tokens of the longest text that it is to be checked on; None takes what model and tokenizer allow.
        fused_attention: Whether a quantised model gets a second graph, for new versions of ONNX Runtime alone.

    Example:
        >>> from tokenizers import Tokenizer, models
        >>> from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast
        >>> from edgemin_hf.export import TrainedModel
        >>> rules = Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 1, "card": 2}, "[UNK]"))
        >>> tokenizer = PreTrainedTokenizerFast(tokenizer_object=rules, unk_token="[UNK]", pad_token="[PAD]")
        >>> shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
        >>> model = BertForSequenceClassification(BertConfig(vocab_size=3, **shape)).eval()
        >>> TrainedModel(model, model, tokenizer, ["card"]).plain.config.num_labels  # what a target's `write` is given
        2
    """

    model: PreTrainedModel
    plain: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    texts: Sequence[Text]
    max_length: int | None = None
    fused_attention: bool = False


class Target(Protocol):
    """One kind of file that a model is exported to."""

    def write(self, trained: TrainedModel, folder: Path) -> tuple[ManifestEntry, ...]:
        """Write the target's files into the artefact's folder, checked.

        Args:
            trained: The model.
            folder: The artefact's folder, in which the targets before have written theirs.

        Returns:
            An entry for each model that it wrote; none where the model has nothing for it.

        Raises:
            FidelityError: If what it wrote does not compute what the PyTorch model computes.
        """
        ...
