from .trainer import DistillationTrainer as DistillationTrainer
