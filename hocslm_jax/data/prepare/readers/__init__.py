"""Readers of skeleton files as sensors, pose estimators and people write them."""
