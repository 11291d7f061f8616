"""Tiny random models of every family, and data that they can learn."""

import string

import torch
import transformers
from transformers import (
    AlbertConfig,
    AlbertForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    CamembertConfig,
    CamembertForSequenceClassification,
    DebertaConfig,
    DebertaForSequenceClassification,
    DebertaV2Config,
    DebertaV2ForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    ElectraConfig,
    ElectraForSequenceClassification,
    ErnieConfig,
    ErnieForSequenceClassification,
    ModernBertConfig,
    ModernBertForSequenceClassification,
    MPNetConfig,
    MPNetForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
    XLMRobertaConfig,
    XLMRobertaForSequenceClassification,
    set_seed,
)

SlowTokenizer = getattr(transformers, "BertTokenizerLegacy", transformers.BertTokenizer)
"""BERT's slow tokenizer: in transformers 5 `BertTokenizer` is the fast one."""

WORDS = ["card", "money", "lost", "send", "where", "is", "my", "the", "to", "late", "new", "old", "please", "now"]


VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *string.ascii_lowercase, *WORDS]


VOCABULARY += [f"##{letter}" for letter in string.ascii_lowercase]


LABELS = ("card_problem", "transfer")


SHAPE = {"vocab_size": len(VOCABULARY), "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}


SHAPE |= {"intermediate_size": 64, "max_position_embeddings": 66, "num_labels": 3}


FAMILIES = {
    "bert": (BertForSequenceClassification, BertConfig(**SHAPE)),
    "roberta": (RobertaForSequenceClassification, RobertaConfig(**SHAPE, pad_token_id=0)),
    "xlm-roberta": (XLMRobertaForSequenceClassification, XLMRobertaConfig(**SHAPE, pad_token_id=0)),
    "camembert": (CamembertForSequenceClassification, CamembertConfig(**SHAPE, pad_token_id=0)),
    "ernie": (ErnieForSequenceClassification, ErnieConfig(**SHAPE)),
    "electra": (ElectraForSequenceClassification, ElectraConfig(**SHAPE, embedding_size=16)),
    "mpnet": (MPNetForSequenceClassification, MPNetConfig(**SHAPE, pad_token_id=0)),
    "distilbert": (
        DistilBertForSequenceClassification,
        DistilBertConfig(
            vocab_size=len(VOCABULARY), dim=32, n_layers=3, n_heads=4, hidden_dim=64, max_position_embeddings=66,
            num_labels=3,
        ),
    ),
    "albert": (
        AlbertForSequenceClassification,
        AlbertConfig(**SHAPE, embedding_size=16, classifier_dropout_prob=0.0, hidden_dropout_prob=0.1),
    ),
    "deberta": (
        DebertaForSequenceClassification,
        DebertaConfig(**SHAPE, relative_attention=True, pos_att_type=["c2p", "p2c"], position_biased_input=False),
    ),
    "deberta-v2": (
        DebertaV2ForSequenceClassification,
        DebertaV2Config(
            **SHAPE, relative_attention=True, pos_att_type=["c2p", "p2c"], position_biased_input=False,
            position_buckets=8, norm_rel_ebd="layer_norm", share_att_key=True,
        ),
    ),
    "modernbert": (
        ModernBertForSequenceClassification,
        ModernBertConfig(
            **SHAPE, pad_token_id=0, bos_token_id=2, eos_token_id=3, cls_token_id=2, sep_token_id=3,
            local_attention=6, global_attn_every_n_layers=2,
        ),
    ),
}  # fmt: skip


PRUNABLE = ["bert", "roberta", "xlm-roberta", "camembert", "ernie", "electra", "distilbert"]


def tiny(family="bert", seed=0, head=None, **changes):
    """A random model of a real class, with weights large enough that layers matter; in evaluation mode."""
    model_class, config = FAMILIES[family]
    set_seed(seed)
    settings = config.to_dict() | changes
    if settings.get("layer_types"):  # of ModernBERT in transformers 5, one for each layer
        settings["layer_types"] = settings["layer_types"][: settings["num_hidden_layers"]]
    config = type(config)(**settings)
    model = (model_class(config) if head is None else head.from_config(config)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2 and "embeddings" not in name:
                parameter.mul_(8)
            if name.endswith("bias"):
                parameter.normal_(std=0.1)
    return model


def batch(lengths=(7, 4, 9), seed=0, pad_to=None, side="right"):
    """Random token ids with padding, and their mask."""
    generator = torch.Generator().manual_seed(seed)
    width = pad_to or max(lengths)
    ids = torch.zeros(len(lengths), width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, length in enumerate(lengths):
        place = slice(0, length) if side == "right" else slice(width - length, width)
        ids[row, place] = torch.randint(5, len(VOCABULARY), (length,), generator=generator)
        mask[row, place] = 1
    return {"input_ids": ids, "attention_mask": mask}


def spread(tensor, places, width):
    """The same tokens at other places of a longer row, with nonsense where the padding is."""
    wide = torch.full((tensor.shape[0], width, *tensor.shape[2:]), 7, dtype=tensor.dtype)
    wide[:, places] = tensor
    return wide


def sentences(count, seed=0):
    """Sentences of two classes that a tiny model can tell apart, with their labels."""
    generator = torch.Generator().manual_seed(seed)

    def pick(words):
        return words[int(torch.randint(len(words), (1,), generator=generator))]

    rows = []
    for index in range(count):
        label = index % 2
        filler = [pick(WORDS[4:]) for _ in range(int(torch.randint(2, 7, (1,), generator=generator)))]
        filler.insert(len(filler) // 2, pick(["card", "lost"] if label == 0 else ["money", "send"]))
        rows.append((" ".join(filler), LABELS[label]))
    return rows


def write_tsv(path, rows):
    path.write_text("\n".join(["text\tlabel", *("\t".join(row) for row in rows)]) + "\n")
    return path
