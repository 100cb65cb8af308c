"""Training: the loop, the stages and their tasks, losses, schedule, checkpoints and validation."""
