"""The parsers that `benchmarks.fuzz` tests, each with valid files and the errors it may raise."""

import contextlib
import dataclasses
import io
import json
import pickle
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks import fuzz_gguf, fuzz_recordings
from hocslm_jax.data.captions import read_captions
from hocslm_jax.data.prepare import nw_ucla
from hocslm_jax.data.prepare.archive import read_members
from hocslm_jax.data.prepare.importers.ctrgcn_npz import own_recipe as own_npz
from hocslm_jax.data.prepare.importers.pyskl import own_recipe as own_pickle
from hocslm_jax.data.prepare.ntu.bodies import actors
from hocslm_jax.data.prepare.ntu.skeleton import parse_skeleton
from hocslm_jax.data.prepare.ntu.sources import list_members, read_member
from hocslm_jax.data.prepare.readers.clips import read_clip
from hocslm_jax.data.prepare.readers.formats import read_recording
from hocslm_jax.errors import UserError
from hocslm_jax.evaluate.score_files import read_clip_list
from hocslm_jax.evaluate.score_files import read_members as read_score_files
from hocslm_jax.evaluate.scores import load_scores
from hocslm_jax.files.text import parse_json, read_json, read_table
from hocslm_jax.graph import NTU25, resolve_graph
from hocslm_jax.language.caption.answers import read_answer
from hocslm_jax.models.lm.config import SIZES, from_hf, to_hf
from hocslm_jax.train.release_files import WEIGHTS, read_variables


@dataclasses.dataclass(frozen=True)
class Target:
    """A parser.

    Attributes:
      act: parses a file.
      seeds: contents of valid files.
      suffix: suffix of the file name.
      raises: exceptions that it may raise for damaged files.
    """

    act: Callable[[Path], object]
    seeds: tuple[bytes, ...]
    suffix: str = ""
    raises: tuple[type[Exception], ...] = (UserError,)


def targets() -> dict[str, Target]:
    """Every parser of external files, by name."""
    bad = lambda *_: None  # noqa: E731 - ignores bad entries
    both = (UserError, ValueError)
    ucla = _json({"file_name": "a", "label": 1, "skeletons": np.ones((2, 20, 3)).tolist()})
    one = {"id": "a", "caption": "A person sits.", "model": "m", "prompt": "p", "time": "t"}
    captions = _json(one) + b"\n\n" + _json(one) + b"\r\n"

    halves = {f"x_{split}": np.ones((2, 4, 150), np.float32) for split in ("train", "test")}
    npz_clips = _npz(np.savez, **halves, y_train=np.eye(2), y_test=np.eye(2))

    def clips(recipe):
        return [clip for shard in recipe.shards for clip in shard()]

    def unpack(path):
        for member in list_members(path, bad)[0]:
            with contextlib.suppress(ValueError):
                read_member(member) if not isinstance(member.place, int) else None

    def safetensors(path):
        shutil.copy(path, path.with_name(WEIGHTS))
        read_variables(path.parent, {})

    skeleton = lambda path: actors(parse_skeleton(path.read_bytes()))  # noqa: E731
    return {
        "skeleton": Target(skeleton, (_skeleton(1), _skeleton(2)), ".skeleton", both),
        "nw_ucla": Target(lambda p: nw_ucla.parse_joints(p.read_bytes()), (ucla,), "", both),
        "captions": Target(read_captions, (captions,), ".jsonl"),
        "table": Target(
            lambda p: read_table(p, ("id", "file"), ("split",)),
            (b"id,file,split\r\na,b.npy,train\r\n", b'\xef\xbb\xbfid;File\n"a;b";c\n'),
            ".csv",
        ),
        "clip list": Target(read_clip_list, (b"a 1\nb 2\n", b"a;1\r\n"), ".txt"),
        "graph": Target(lambda p: resolve_graph(read_json(p)), (_json(NTU25.as_mapping()),)),
        "npy": Target(lambda p: read_clip(p, NTU25), (_npy(2), _npy(1, "<f8")), ".npy", both),
        "scores": Target(load_scores, (_scores(True), _scores(False)), ".npz"),
        "npz clips": Target(lambda p: clips(own_npz("own", p, bad, NTU25)), (npz_clips,), ".npz"),
        "score pickle": Target(
            lambda p: read_score_files([str(p)]), tuple(_pickled_scores()), ".pkl"
        ),
        "clip pickle": Target(
            lambda p: clips(own_pickle("own", p, bad, NTU25)), tuple(_pickled_clips()), ".pkl"
        ),
        "safetensors": Target(safetensors, (_safetensors(),)),
        "language model": Target(
            lambda p: from_hf(read_json(p)), (_json(to_hf(SIZES["0.6B"])),), "", both
        ),
        "gguf": Target(fuzz_gguf.read, (fuzz_gguf.seed(),), ".gguf"),
        "archive": Target(
            lambda p: list(read_members(p, (".json",))), (_zip(), _tar("w"), _tar("w:gz"))
        ),
        "packed skeletons": Target(unpack, (_zip(".skeleton"), _tar("w", ".skeleton"))),
        "reply": Target(
            lambda p: read_answer(parse_json(p.read_bytes())),
            (_json({"choices": [{"message": {"content": "A person sits."}}]}),),
            "",
            both,
        ),
    } | {
        f"joints {suffix}": Target(read_recording, files, suffix)
        for suffix, files in fuzz_recordings.seeds().items()
    }


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


def _skeleton(bodies: int) -> bytes:
    joint = b"0.1 0.2 3.1 1 2 3 4 0 0 0 1 2\n"
    one = b"".join(b"%d 0 1 1 1 1 0 0.1 0.2 2\n25\n" % n + 25 * joint for n in range(bodies))
    return b"12\n" + 12 * (b"%d\n" % bodies + one)


def _npy(persons: int, dtype: str = "<f4") -> bytes:
    file = io.BytesIO()
    np.save(file, np.ones((3, persons, 25, 3), dtype))
    return file.getvalue()


def _npz(save: Callable, **arrays: np.ndarray) -> bytes:
    file = io.BytesIO()
    save(file, **arrays)
    return file.getvalue()


def _scores(packed: bool) -> bytes:
    save = np.savez_compressed if packed else np.savez
    names = {"ids": np.array(["a", "b"]), "classes": np.array(["x", "y", "z"])}
    return _npz(save, **names, labels=np.array([0, 2], np.int32), logits=np.ones((2, 3), "<f4"))


def _pickled_scores() -> list[bytes]:
    rows = {f"a{n}": np.ones(3, np.float32) for n in range(3)}
    numbered = {np.int64(n): np.ones(3) for n in range(3)}
    return [pickle.dumps(what, n) for what in (rows, numbered) for n in (2, 4, 5)]


def _pickled_clips() -> list[bytes]:
    joints = np.ones((1, 4, 25, 3), np.float16)
    items = [
        {"frame_dir": name, "label": 0, "keypoint": joints + 0, "total_frames": 4} for name in "ab"
    ]
    what = {"split": {"train": ["a"], "val": ["b"]}, "annotations": items}
    return [pickle.dumps(what, n) for n in (2, 4, 5)]


def _safetensors() -> bytes:
    header = _json({"params/a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}})
    return len(header).to_bytes(8, "little") + header + bytes(8)


def _zip(suffix: str = ".json") -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"a/b{suffix}", b"0 1 2" * 20)
        archive.writestr(f"c{suffix}", b"1", zipfile.ZIP_STORED)
    return file.getvalue()


def _tar(mode: str, suffix: str = ".json") -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as archive:
        info = tarfile.TarInfo(f"a/b{suffix}")
        info.size = 100
        archive.addfile(info, io.BytesIO(bytes(100)))
    return file.getvalue()
