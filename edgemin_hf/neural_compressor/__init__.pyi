from .ptq import quantize_by_inc as quantize_by_inc
from .qat import finish_inc as finish_inc
from .qat import prepare_inc as prepare_inc
