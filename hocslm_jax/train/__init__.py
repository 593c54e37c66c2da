"""Training: state, optimiser, step, checkpoints, metrics and the training loop."""
