"""Readers of skeleton files from sensors, pose estimators and other programs."""
