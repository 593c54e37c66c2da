"""Benchmarks of the package, one command each: `python -m benchmarks.NAME --json OUT`.

Every result file contains the repetitions behind its medians, the machine, the versions and the
command.
"""
