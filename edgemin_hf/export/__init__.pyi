from .fidelity import FidelityError as FidelityError
from .fidelity import check_fidelity as check_fidelity
from .manifest import Fidelity as Fidelity
from .onnx import Export as Export
from .onnx import export_baseline as export_baseline
from .onnx import export_onnx as export_onnx
from .ptq import quantize_static as quantize_static
