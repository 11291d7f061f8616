from .checkpoints import Checkpoint as Checkpoint
from .checkpoints import CheckpointError as CheckpointError
from .checkpoints import resolve_checkpoint as resolve_checkpoint
from .files import Published as Published
from .files import published_files as published_files
from .push import PushError as PushError
from .push import push_artefact as push_artefact
