from .one_call import prune as prune
from .one_call import quantize as quantize
from .trainer import DistillationTrainer as DistillationTrainer
from .wise_ft import WiseFT as WiseFT
