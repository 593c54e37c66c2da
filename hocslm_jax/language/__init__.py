"""The frozen language model: opening and pretraining it, describing clips, scoring descriptions."""
