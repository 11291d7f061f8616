from .base import Made as Made
from .compare import Comparison as Comparison
from .compare import RivalRow as RivalRow
from .known import RIVALS as RIVALS
