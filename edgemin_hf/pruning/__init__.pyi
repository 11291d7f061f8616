from .config import PruningConfig as PruningConfig
from .saliency import Saliency as Saliency
from .selection import select as select
from .vocabulary import prune_vocabulary as prune_vocabulary
