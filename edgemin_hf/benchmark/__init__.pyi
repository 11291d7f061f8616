from .artefact import benchmark_artefact as benchmark_artefact
from .measure import measure_latency as measure_latency
from .rows import Benchmark as Benchmark
from .rows import BenchmarkRow as BenchmarkRow
from .rows import Latency as Latency
from .runners import OnnxRunner as OnnxRunner
from .runners import OpenVinoRunner as OpenVinoRunner
from .runners import PyTorchRunner as PyTorchRunner
