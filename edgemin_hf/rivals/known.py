"""The list of rivals, by their names in a recipe."""

from edgemin_hf.rivals.bag_of_words import bag_of_words
from edgemin_hf.rivals.base import Maker
from edgemin_hf.rivals.frozen_encoder import frozen_encoder
from edgemin_hf.rivals.openvino import openvino
from edgemin_hf.rivals.static_embeddings import static_embeddings

RIVALS: dict[str, Maker] = {
    "bag_of_words": bag_of_words,
    "static_embeddings": static_embeddings,
    "frozen_encoder": frozen_encoder,
    "openvino": openvino,
}
