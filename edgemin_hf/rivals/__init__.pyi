from .base import Given as Given
from .base import Made as Made
from .compare import Comparison as Comparison
from .compare import RivalRow as RivalRow
from .compare import compare as compare
from .compare import make_rivals as make_rivals
from .known import RIVALS as RIVALS
