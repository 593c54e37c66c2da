"""What a trained model, or a clip, looks like to its user."""
