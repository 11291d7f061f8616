"""The Hub: finding checkpoints, writing model cards, pushing artefacts."""
