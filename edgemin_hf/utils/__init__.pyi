from .atomic_files import atomic_folder as atomic_folder
from .atomic_files import check_writable_folder as check_writable_folder
from .atomic_files import write_atomic as write_atomic
from .edgemin_config import EdgeminConfig as EdgeminConfig
from .edgemin_config import TrainingRecord as TrainingRecord
from .settings import Settings as Settings
