"""Loading an artefact from a folder or the Hub."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from edgemin_hf.runtime.answers import Answerer
from edgemin_hf.runtime.artefact import SMALL_FILES, Artefact, read_artefact
from edgemin_hf.runtime.classifiers import Classifier, MultiLabelClassifier, Regressor, Reranker
from edgemin_hf.runtime.embeddings import Embedder
from edgemin_hf.runtime.entities import Tagger
from edgemin_hf.runtime.model import Model
from edgemin_hf.runtime.verification import verify as verify_model

MODELS: dict[str, type[Model]] = {
    "text_classification": Classifier,
    "multi_label": MultiLabelClassifier,
    "regression": Regressor,
    "reranking": Reranker,
    "token_classification": Tagger,
    "question_answering": Answerer,
    "sentence_embedding": Embedder,
}
"""What runs an artefact, by its task."""


def load(
    source: str | PathLike[str],
    file: str | None = None,
    threads: int = 1,
    providers: Sequence[str] | None = None,
    revision: str | None = None,
    verify: bool = False,
) -> Model:
    """Load an artefact, without PyTorch and transformers.

    Args:
        source: Its folder, or its id on the Hub, of which what is needed is downloaded.
        file: The graph, such as "onnx/model.onnx"; None takes the fused one, or else the quantised one, or else the one
            in full precision, of those that ONNX Runtime is new enough for.
        threads: Threads of a pass.
        providers: ONNX Runtime's execution providers; None takes the CPU's.
        revision: Branch, tag or commit on the Hub.
        verify: Whether the manifest's texts are run first and compared with what they should give.

    Returns:
        The model, with what its task can do: `predict` and `predict_proba`, `entities`, `answer`, or `encode`.

    Raises:
        ValueError: If there is no such artefact, its task has no runtime, or an argument is not allowed; one line.
        VerificationError: If the graph does not compute what it should here.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from tokenizers import Tokenizer, models
        >>> from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast
        >>> from edgemin_hf import export_onnx
        >>> from edgemin_hf.runtime import load
        >>> rules = Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 1, "card": 2}, "[UNK]"))
        >>> tokenizer = PreTrainedTokenizerFast(tokenizer_object=rules, unk_token="[UNK]", pad_token="[PAD]")
        >>> shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
        >>> made = BertForSequenceClassification(BertConfig(vocab_size=3, **shape)).eval()
        >>> with TemporaryDirectory() as above:
        ...     folder = export_onnx(made, tokenizer, f"{above}/edge", texts=["card"]).folder
        ...     model = load(folder, verify=True)
        >>> model.labels, model.predict_proba(["card", "no card"]).shape
        (('LABEL_0', 'LABEL_1'), (2, 2))
    """
    artefact = _artefact(source, file, revision)
    kind = MODELS.get(artefact.task)
    if kind is None:
        raise ValueError(f"{source}: an artefact for {artefact.task}; allowed: one for {', '.join(MODELS)}")
    model = kind(artefact, file, threads, providers)
    if verify:
        verify_model(model)
    return model


def _artefact(source: str | PathLike[str], file: str | None, revision: str | None) -> Artefact:
    if Path(source).is_dir():
        return read_artefact(Path(source).absolute())  # read again later, perhaps from another working directory
    try:
        folder = Path(snapshot_download(str(source), revision=revision, allow_patterns=list(SMALL_FILES)))
        artefact = read_artefact(folder)
        # The folder's name is the commit: a push between the two calls changes nothing.
        snapshot_download(str(source), revision=folder.name, allow_patterns=list(artefact.graph(file).files))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        told = " ".join(str(error).split())[:200]
        raise ValueError(f"{source}: no folder, and not loaded from the Hub ({type(error).__name__}: {told})") from None
    return artefact
