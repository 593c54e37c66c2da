"""`prepare --check` accepts a prepared dataset and detects later changes."""

import dataclasses
import functools
import json

import numpy as np
import pytest
from toy_dataset import make_clips, make_recipe

from hocslm_jax.__main__ import main
from hocslm_jax.data import protocols
from hocslm_jax.data.clip import Clip
from hocslm_jax.data.prepare.build import prepare
from hocslm_jax.data.prepare.check import check
from hocslm_jax.errors import UserError
from hocslm_jax.graph import NTU25


@pytest.fixture
def folder(tmp_path):
    """Eight clips of NTU60: performers 1 to 4, cameras 1 and 2."""
    rng = np.random.default_rng(0)
    clips = [
        Clip(f"S001C00{camera}P00{subject}R001A001", rng.normal(size=(3, 1, 25, 3)), 0,
             subject=subject, camera=camera, setup=1, replication=1)
        for subject in range(1, 5) for camera in (1, 2)
    ]  # fmt: skip
    recipe = dataclasses.replace(
        make_recipe([], "ntu60"),
        graph=NTU25,
        shards=[functools.partial(iter, clips[at : at + 3]) for at in (0, 3, 6)],
        protocols=functools.partial(protocols.public, "ntu60"),
    )
    prepare(recipe, tmp_path, [])
    return tmp_path


def change(folder, edit):
    path = folder / "ntu60/index.json"
    index = json.loads(path.read_text())
    edit(index)
    path.write_text(json.dumps(index))


def test_a_good_one(folder, capsys):
    assert main(["prepare", "ntu60", "--check", "--data-dir", str(folder)]) == 0
    out = capsys.readouterr().out
    assert "8 clips in 5 files verified" in out and "disjoint by subject, camera" in out


def test_another_dataset(tmp_path):
    prepare(make_recipe(make_clips()), tmp_path, [])
    assert check("toy", tmp_path).endswith("splits disjoint")


def move(index, protocol, row):
    """Moves a row from test to train."""
    splits = index["protocols"][protocol]
    splits["test"].remove(row)
    splits["train"] = sorted([*splits["train"], row])


EDITS = {
    "no checksums": (lambda index: index.pop("checksums"), "has no checksums"),
    "label": (lambda index: index["columns"]["label"].__setitem__(1, 2), "record 1 is not row 1"),
    "id": (lambda index: index["columns"]["id"].__setitem__(1, "x"), "record 1 is not row 1 of"),
    "twice": (lambda index: index["columns"]["id"].__setitem__(1, index["columns"]["id"][0]),
              "ids are not unique"),
    "classes": (lambda index: index.update(classes=[]), "has label 0"),
    "rows": (lambda index: [column.pop() for column in index["columns"].values()],
             "8 records, but 7 rows"),
    "clip in both": (lambda index: index["protocols"]["xsub"]["train"].append(4),
                     "xsub: a clip is in two splits"),
    "subject in both": (lambda index: move(index, "xsub", 4), r"xsub: subject \[3\] in both"),
    "camera in both": (lambda index: move(index, "xview", 0), r"xview: camera \[1\] in both"),
    "a clip left out": (lambda index: index["protocols"]["xsub"]["train"].pop(),
                        "xsub is not the published protocol"),
    "beyond": (lambda index: index["protocols"]["xsub"]["train"].append(8), "rows beyond the 8"),
}  # fmt: skip


@pytest.mark.parametrize("edit", EDITS)
def test_a_changed_index(folder, edit):
    what, message = EDITS[edit]
    change(folder, what)
    with pytest.raises(UserError, match=message):
        check("ntu60", folder)


def test_a_changed_record(folder):
    path = next((folder / "ntu60/1.0.0").glob("*array_record-00001*"))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"array_record-00001-of-00003 has changed since"):
        check("ntu60", folder)


def test_not_prepared(tmp_path, capsys):
    assert main(["prepare", "ntu120", "--check", "--data-dir", str(tmp_path)]) == 2
    assert "not prepared; run: python -m hocslm_jax prepare ntu120" in capsys.readouterr().err
