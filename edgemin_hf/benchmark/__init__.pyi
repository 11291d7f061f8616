from .artefact import benchmark_artefact as benchmark_artefact
from .layer_latency import LatencyTable as LatencyTable
from .layer_latency import measure_latency_table as measure_latency_table
from .measure import measure_latency as measure_latency
from .runners import OnnxRunner as OnnxRunner
from .runners import OpenVinoRunner as OpenVinoRunner
from .runners import PyTorchRunner as PyTorchRunner
