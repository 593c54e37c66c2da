"""Small files that claim or unpack to much data are refused early."""

import io
import json
import time
import tracemalloc
import zipfile

import numpy as np
import pytest

from hocslm_jax.data.prepare import nw_ucla
from hocslm_jax.data.prepare.ntu.skeleton import MAX_LINES, parse_skeleton
from hocslm_jax.data.prepare.ntu.sources import MAX_BYTES, list_members
from hocslm_jax.errors import UserError
from hocslm_jax.evaluate.scores import load_scores
from hocslm_jax.files import npy
from hocslm_jax.graph import MAX_JOINTS, resolve_graph
from hocslm_jax.models.lm.config import SIZES, from_hf, to_hf


@pytest.fixture(autouse=True)
def _bounded():
    """Each of these takes less than 128 MiB and a second or two."""
    tracemalloc.start()
    started = time.process_time()
    yield
    seconds = time.process_time() - started
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 128 << 20 and seconds < 10


def pack(path, members, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def header(shape: str) -> bytes:
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


@pytest.mark.parametrize("shape", ["(1099511627776,)", "(1048576, 1048576)", "(2,)", "(0, 0, 0)"])
def test_scores_that_claim_what_is_not_there(tmp_path, shape):
    members = {f"{name}.npy": header(shape) for name in ("ids", "labels", "logits")}
    with pytest.raises(UserError, match=r"s\.npz: "):
        load_scores(pack(tmp_path / "s.npz", members))


def test_scores_that_unpack_to_a_lot(tmp_path):
    path = pack(tmp_path / "s.npz", {"logits.npy": header(f"({1 << 20},)") + bytes(4 << 20)})
    assert path.stat().st_size < 10_000
    with pytest.raises(ValueError, match="unpacks to over 1048576 bytes"):
        npy.read_npz(path, limit=1 << 20)
    assert npy.read_npz(path)["logits.npy".removesuffix(".npy")].shape == (1 << 20,)
    assert npy.MAX_BYTES <= 1 << 28


def test_scores_of_endless_names(tmp_path):
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        ids=np.zeros(1, "<U4000000"),
        labels=np.zeros(1, np.int32),
        logits=np.zeros((1, 0), np.float32),
    )
    (tmp_path / "s.npz").write_bytes(buffer.getvalue())
    with pytest.raises(UserError):
        load_scores(tmp_path / "s.npz")


@pytest.mark.parametrize("line", [b"0\n", b"1\n", b"\n"])
def test_skeletons_of_endless_lines(line):
    with pytest.raises(ValueError, match="too many lines for a recording"):
        parse_skeleton(b"%d\n" % (2 * MAX_LINES) + line * (2 * MAX_LINES))


def test_skeleton_that_unpacks_to_too_much_is_skipped(tmp_path):
    name = "S001C001P001R001A001.skeleton"
    path = pack(tmp_path / "x.zip", {name: b"0\n" * (MAX_BYTES // 2 + 1)})
    bad = []
    assert list_members(path, lambda *what: bad.append(what))[0] == []
    assert bad == [(name, f"over {MAX_BYTES} bytes")] and path.stat().st_size < 100_000


def test_nw_ucla_archives_are_bounded_by_the_real_one(tmp_path):
    big = b"[" + b"0," * nw_ucla.LIMITS.member_bytes + b"0]"
    path = pack(tmp_path / "x.zip", {"a01_s01_e00_v01.json": big})
    with pytest.raises(UserError, match="is over 4194304 bytes; refused"):
        list(nw_ucla.read_clips(path, print))
    assert nw_ucla.LIMITS.total_bytes <= 4 * 38_000_000


@pytest.mark.parametrize("key", ["num_hidden_layers", "vocab_size", "hidden_size", "head_dim"])
@pytest.mark.parametrize("value", [10**9, 10**100, 1e6, "9", True])
def test_language_models_of_absurd_size(key, value):
    with pytest.raises(UserError, match=key):
        from_hf(json.loads(json.dumps(to_hf(SIZES["0.6B"]) | {key: value})))


def test_graphs_of_too_many_joints():
    def chain(count):
        joints, edges = [str(v) for v in range(count)], [[v, v - 1] for v in range(1, count)]
        return {"name": "chain", "joints": joints, "edges": edges, "root": 0}

    assert resolve_graph(chain(MAX_JOINTS)).num_joints == MAX_JOINTS
    with pytest.raises(UserError, match="at most 1000 names"):
        resolve_graph(chain(100_000))
