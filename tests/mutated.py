"""Random changes of a file's bytes, for tests that feed damaged files to a parser."""

from collections.abc import Sequence

from hypothesis import strategies as st

# Place as a share of the file; 0 inserts, 1 replaces, 2 shortens; new bytes.
EDIT = st.tuples(st.floats(0, 1), st.integers(0, 2), st.binary(max_size=9))


def mutated(data: bytes, edits: Sequence[tuple[float, int, bytes]]) -> bytes:
    changed = bytearray(data)
    for place, kind, new in edits:
        start = int(place * len(changed))
        changed[start : start + (0, len(new), 2 * len(new))[kind]] = new
    return bytes(changed)
