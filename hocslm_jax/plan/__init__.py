"""Predicts memory, arithmetic and traffic of a train step on devices that you need not have."""
