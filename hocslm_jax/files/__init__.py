"""Files: atomic writes, careful reading, checksums."""
