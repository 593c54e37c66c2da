"""Files are written atomically; a lock ends with its process; any file names work."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from hocslm_jax.errors import UserError
from hocslm_jax.files import atomic, checksums

HOLD = """
import sys, time
from pathlib import Path
from hocslm_jax.files import atomic
with atomic.held(Path(sys.argv[1]), "trains here"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_an_exception_leaves_the_old_file(tmp_path):
    path = tmp_path / "result.json"
    atomic.write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        atomic.write_json(path, {"a": object()})
    with pytest.raises(RuntimeError), atomic.replaced(path) as partial:
        partial.write_text("half")
        assert json.loads(path.read_text()) == {"a": 1}
        raise RuntimeError
    assert os.listdir(tmp_path) == ["result.json"] and json.loads(path.read_text()) == {"a": 1}


@pytest.mark.parametrize("text", [None, "", "{", "[1]", '{"b": 1}', "[" * 100_000, "\udcff"])
def test_a_damaged_file_is_one_line(tmp_path, text):
    path = tmp_path / "x.json"
    if text is not None:
        path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(UserError) as error:
        atomic.read_json(path, "run it again", ("a",))
    assert "run it again" in str(error.value) and "\n" not in str(error.value)


def test_lock_refuses_a_second_process_and_is_freed_by_a_crash(tmp_path):
    path = tmp_path / "run.lock"
    command = [sys.executable, "-c", HOLD, str(path)]
    holder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        refused = pytest.raises(UserError, match=rf"process {holder.pid} on \S+ trains here")
        with refused, atomic.held(path, "trains here"):
            pass
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.communicate()
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            with atomic.held(path, "trains here"):
                return
        except UserError:
            time.sleep(0.05)
    pytest.fail("the lock outlived its process")


@pytest.mark.parametrize("place", ["gs://bucket/run", "s3://b/x", "file:///tmp/x", "a\\b", ""])
def test_what_is_no_place_is_refused(place):
    with pytest.raises(UserError, match="--workdir") as error:
        atomic.check_folder("--workdir", place)
    assert len(str(error.value)) < 300


@pytest.mark.parametrize("place", ["x[1]", "exp[lr=0.1]", "-x", "a b", "ü", "a:b", "C:", "x?*"])
def test_other_names_are_places(place):
    atomic.check_folder("--workdir", place)


def test_checksums_are_those_of_sha256sum(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
    assert not checksums.check_seal(tmp_path, ("a",), "fetch it")
    checksums.seal(tmp_path, ("a", "b"))
    assert (
        subprocess.run(["sha256sum", "-c", "--quiet", checksums.SUMS], cwd=tmp_path).returncode == 0
    )
    assert checksums.check_seal(tmp_path, ("a", "b"), "fetch it")
    assert checksums.check_seal(tmp_path, None, "fetch it")
    (tmp_path / "b").write_text("c")
    for names in (("b",), None, ("c",)):
        with pytest.raises(UserError, match="fetch it"):
            checksums.check_seal(tmp_path, names, "fetch it")
