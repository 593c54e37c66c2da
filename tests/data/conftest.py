"""Makes this folder's helper modules importable for all tests below it."""
