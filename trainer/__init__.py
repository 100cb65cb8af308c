"""Training: the loop, the two tasks, losses, schedule, checkpoints and validation."""
