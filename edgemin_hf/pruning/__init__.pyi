from .config import PruningConfig as PruningConfig
from .coverage import split_share as split_share
from .coverage import unknown_share as unknown_share
from .saliency import Saliency as Saliency
from .selection import select as select
from .vocabulary import prune_vocabulary as prune_vocabulary
