"""What each stage of a recipe does. A stage fills one folder, which appears when it is whole."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from datasets import Dataset, load_from_disk
from safetensors.torch import load_model
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

from edgemin_hf.artefact import write_artefact
from edgemin_hf.benchmark.measure import benchmark_rows, cpu_flags, environment, files_of, load_runner
from edgemin_hf.benchmark.measure import measure_latency, predict
from edgemin_hf.data import read_sentences, tokenize
from edgemin_hf.distillation.task import TEACHER_LOGITS, TaskDistillationConfig
from edgemin_hf.distillation.teacher_logits import cached_teacher_logits
from edgemin_hf.export.folder import whole_folder, write_whole
from edgemin_hf.export.onnx import export_baseline, export_onnx
from edgemin_hf.hub.checkpoints import resolve_checkpoint
from edgemin_hf.quantization.native import prepare_qat
from edgemin_hf.recipe import (
    TRAINS_STUDENT,
    Benchmark,
    Distill,
    Evaluate,
    Export,
    Finetune,
    Prune,
    Quantize,
    Recipe,
    Report,
    Stage,
    TaskDistill,
    TrainingStage,
    student_shape,
    teacher_name,
)
from edgemin_hf.student import create_student
from edgemin_hf.tasks import accuracy, accuracy_with_interval
from edgemin_hf.trainer import DistillationTrainer

logger = logging.getLogger(__name__)

TRAINING_STAGES = (Finetune, Distill, TaskDistill, Prune, Quantize)
