"""RGB videos to captions, by a vision-language model."""
