from .checkpoints import Checkpoint as Checkpoint
from .checkpoints import CheckpointError as CheckpointError
from .checkpoints import resolve_checkpoint as resolve_checkpoint
from .push import PushError as PushError
from .push import push_artefact as push_artefact
