from .quantization import ModuleSensitivity as ModuleSensitivity
from .quantization import QuantizationSensitivity as QuantizationSensitivity
from .quantization import quantization_sensitivity as quantization_sensitivity
from .run import run_sensitivity as run_sensitivity
from .settings import SensitivitySettings as SensitivitySettings
from .target_size import meet_size as meet_size
