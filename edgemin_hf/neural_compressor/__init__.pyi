from .guest import merge_inc_configs as merge_inc_configs
from .guest import write_inc_config as write_inc_config
from .pruning import IncPruner as IncPruner
from .ptq import quantize_by_inc as quantize_by_inc
from .qat import finish_inc as finish_inc
from .qat import prepare_inc as prepare_inc
