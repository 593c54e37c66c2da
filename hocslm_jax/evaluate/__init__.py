"""What a model's logits are worth: scores, tables and figures."""
