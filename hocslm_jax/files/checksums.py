"""Checksums of files that are passed on: `SHA256SUMS`, which `sha256sum -c` reads too.

In: a folder and the names of its files. Out: the file of checksums, against which every load
compares the files. This protects against damage, not against forgery.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from hocslm_jax.errors import UserError
from hocslm_jax.files.atomic import write_text

SUMS = "SHA256SUMS"


def seal(folder: Path, names: Iterable[str]) -> None:
    """Writes the checksums of these files of the folder."""
    write_text(folder / SUMS, "".join(f"{sha256(folder / n)}  {n}\n" for n in sorted(names)))


def check_seal(folder: Path, names: Iterable[str] | None, advice: str) -> bool:
    """Compares files with their checksums; False if the folder has no checksums.

    Args:
        names: None for all files with a checksum.
        advice: tells the user what to do if they differ.

    Raises:
        UserError: a file has changed, or lacks a checksum in a folder that has some.
    """
    try:
        lines = (folder / SUMS).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return False
    except (OSError, UnicodeDecodeError):
        raise UserError(f"{folder / SUMS} cannot be read: {advice}") from None
    known = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    for name in known if names is None else names:
        try:
            same = sha256(folder / name) == known.get(name)
        except OSError as error:
            raise UserError(f"cannot read {folder / name} ({error.strerror}): {advice}") from None
        if not same:
            raise UserError(
                f"{folder / name} is damaged (its checksum in {SUMS} differs): {advice}"
            )
    return True


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
