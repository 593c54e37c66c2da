"""Evaluation of a model's logits: scores, tables and figures."""
