"""Training: state, optimiser, step, checkpoints, metrics and the loop that joins them."""
