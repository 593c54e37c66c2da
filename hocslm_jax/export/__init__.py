"""Trained models as one file for other runtimes: StableHLO for JAX and XLA, ONNX for the rest."""
