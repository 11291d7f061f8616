"""The Trainer, and how a training prunes and quantises."""
