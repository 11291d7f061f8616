"""EdgeMIN: distil, prune, quantise, export and measure BERT-class encoders with Hugging Face tools."""

from edgemin_hf.utils.lazy import attach_stub
from edgemin_hf.utils.old_paths import keep_old_paths

__version__ = "0.1.0"

# Names of `__init__.pyi`, imported on first use: `edgemin --help` needs no PyTorch.
__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
keep_old_paths()
