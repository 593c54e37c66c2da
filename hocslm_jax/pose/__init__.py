"""From the frames of a video to skeletons in metres. NumPy and Pillow; models are optional."""
