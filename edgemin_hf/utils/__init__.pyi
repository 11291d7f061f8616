from .atomic_files import atomic_folder as atomic_folder
from .atomic_files import write_atomic as write_atomic
from .extras import check_extra as check_extra
