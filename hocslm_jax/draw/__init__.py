"""Pictures: skeletons, predictions, confusion matrices."""
