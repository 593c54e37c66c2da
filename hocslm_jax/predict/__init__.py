"""Prediction: what users do with trained models and clips."""
