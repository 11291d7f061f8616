from .one_call import prune as prune
from .one_call import quantize as quantize
from .trainer import DistillationTrainer as DistillationTrainer
from .weight_averaging import WeightAveraging as WeightAveraging
