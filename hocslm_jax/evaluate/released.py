"""The model zoo: a table of released weights, their accuracy and how to use them.

In: the `config.json` of every release below a folder, as `release` writes them. Out: Markdown. The
counts were measured by `release` with the written weights.
"""

import os
from pathlib import Path

from hocslm_jax.evaluate.results import accuracy_cell, markdown_table
from hocslm_jax.files.text import read_json


def find_releases(folder: Path) -> dict[Path, dict]:
    """The folders of released weights that have a count, and their `config.json`."""
    cards = {path.parent: read_json(path) for path in sorted(folder.glob("**/config.json"))}
    return {path: card for path, card in cards.items() if "released" in card}


def releases_table(folder: Path, document: Path) -> list[str]:
    """One line per release, the most accurate first; links are relative to the document."""
    lines = []
    found = sorted(find_releases(folder).items(), key=lambda item: -item[1]["released"]["correct"])
    for path, card in found:
        config, released = card["config"], card["released"]
        data, model = config["data"], config["model"]
        place = Path(os.path.relpath(path, document)).as_posix()
        cells = [
            f"[`{path.as_posix()}`]({place})",
            f"{data['dataset']}, {data['protocol']}",
            f"{model['encoder']}, {data['stream']}",
            f"{card['model']['parameters']:,}",
            f"{config['train']['epochs']}",
            accuracy_cell([released["correct"]], released["total"]),
        ]
        lines.append(cells)
    columns = ["weights", "dataset", "encoder, stream", "parameters", "epochs", "accuracy"]
    return markdown_table(columns, lines) if lines else []
