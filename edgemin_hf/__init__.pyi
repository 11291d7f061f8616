from .data import AugmentationConfig as AugmentationConfig
from .data import augment_texts as augment_texts
from .distillation import DistilBERTConfig as DistilBERTConfig
from .distillation import MiniLMConfig as MiniLMConfig
from .distillation import MiniLMv2Config as MiniLMv2Config
from .distillation import MLKDConfig as MLKDConfig
from .distillation import MLKDTaskConfig as MLKDTaskConfig
from .distillation import PKDConfig as PKDConfig
from .distillation import SimilaritiesConfig as SimilaritiesConfig
from .distillation import TaskDistillationConfig as TaskDistillationConfig
from .distillation import TinyBERTConfig as TinyBERTConfig
from .distillation import Weighted as Weighted
from .distillation import cached_teacher_logits as cached_teacher_logits
from .distillation import minilmv2_loss as minilmv2_loss
from .export import export_onnx as export_onnx
from .modeling import create_student as create_student
from .modeling import load_pruned as load_pruned
from .modeling import student_from_checkpoint as student_from_checkpoint
from .pruning import PruningConfig as PruningConfig
from .pruning import prune_vocabulary as prune_vocabulary
from .quantization import QuantizationConfig as QuantizationConfig
from .quantization import load_quantized as load_quantized
from .training import DistillationTrainer as DistillationTrainer
from .training import prune as prune
from .training import quantize as quantize
from .utils import EdgeminConfig as EdgeminConfig

__version__: str
