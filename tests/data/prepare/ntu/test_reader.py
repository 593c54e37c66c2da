"""All kinds of sources give the same clips, with any workers; errors name the file."""

import io
import multiprocessing
import tarfile
import zipfile

import numpy as np
import pytest
from skeleton_files import solo

from hocslm_jax.data.prepare.ntu import reader
from hocslm_jax.data.prepare.ntu.reader import recipe
from hocslm_jax.errors import UserError

NAMES = [f"S{setup:03}C001P{setup:03}R00{r}A{action:03}"
         for setup in (1, 2) for r in (1, 2) for action in (3, 60)]  # fmt: skip
FILES = {f"part/{name}.skeleton": solo(seed, 15) for seed, name in enumerate(NAMES)}
LITTER = {"__MACOSX/part/._x.skeleton": b"x", "part/readme.txt": b"x", "._y.skeleton": b""}


def folder(path, files):
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def packed(path, files, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def tar(path, files):
    with tarfile.open(path, "w:" + path.suffix[1:].replace("tar", "")) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def read(*sources, dataset="ntu60", **options):
    bad = []
    made = recipe(dataset, sources, lambda *what: bad.append(what), **options)
    return [clip for shard in made.shards for clip in shard()], bad


def assert_same(found, expected):
    assert [clip.id for clip in found] == [clip.id for clip in expected]
    for clip, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(clip.joints, other.joints)
        assert vars(clip).keys() == vars(other).keys()


@pytest.fixture
def expected(tmp_path):
    clips, bad = read(folder(tmp_path / "files", FILES | LITTER))
    assert not bad
    return clips


def test_a_clip_has_what_its_name_says(expected):
    assert [clip.id for clip in expected] == sorted(NAMES)
    clip = expected[-1]
    assert (clip.id, clip.label, clip.subject, clip.camera) == ("S002C001P002R002A060", 59, 2, 1)
    assert (clip.setup, clip.replication, clip.caption) == (2, 2, "")
    assert clip.joints.shape == (15, 1, 25, 3) and not clip.joints[0, 0, 1].any()


@pytest.mark.parametrize(
    "make",
    [
        lambda path, files: packed(path / "x.zip", files),
        lambda path, files: packed(path / "x.zip", files, zipfile.ZIP_STORED),
        lambda path, files: tar(path / "x.tar", files),
        lambda path, files: tar(path / "x.tar.xz", files),
    ],
)
def test_archives(tmp_path, expected, make):
    clips, bad = read(make(tmp_path, LITTER | FILES), workers=1)
    assert not bad
    assert_same(clips, expected)


def test_several_sources(tmp_path, expected):
    names = list(FILES)
    sources = (
        tar(tmp_path / "a.tar.gz", {name: FILES[name] for name in names[6:]}),
        packed(tmp_path / "b.zip", {name: FILES[name] for name in names[3:6]}),
        folder(tmp_path / "c", {name: FILES[name] for name in names[:3]}),
    )
    clips, bad = read(*sources)
    assert not bad
    assert_same(clips, expected)


def test_workers_and_shards_do_not_matter(tmp_path, expected, monkeypatch):
    monkeypatch.setattr(reader, "SHARD_CLIPS", 5)
    monkeypatch.setattr(reader, "BATCH", 2)
    files = FILES | {"part/S003C001P001R001A001.skeleton": b"3\n"}
    sources = (
        packed(tmp_path / "x.zip", dict(list(files.items())[:6])),
        tar(tmp_path / "x.tar", dict(list(files.items())[6:])),
    )
    for workers in (1, 2):
        clips, bad = read(*sources, workers=workers)
        assert_same(clips, expected)
        assert bad == [
            ("part/S003C001P001R001A001.skeleton",
             "line 1: the file ends where the number of bodies should follow")
        ]  # fmt: skip


def test_the_dataset_takes_its_own(tmp_path):
    """Neither NTU60's missing files, which may be damaged, nor the rest of NTU120."""
    more = {name: b"" for name in ("S001C002P005R002A008", "S018C001P008R001A061")}
    source = folder(tmp_path / "x", FILES | {f"{name}.skeleton": more[name] for name in more})
    clips, bad = read(source)
    assert len(clips) == len(FILES) and not bad
    clips, bad = read(source, dataset="ntu120")
    assert len(clips) == len(FILES)
    assert bad == [("S018C001P008R001A061.skeleton", "line 1: empty file")]


def test_bad_names(tmp_path):
    names = {
        "S001C001P001R001.skeleton": "not named",
        "S001C001P001R001A001_rgb.skeleton": "not named",
        "S001C001P041R001A001.skeleton": "performer 41, but ntu60 has 40",
        "S018C001P001R001A001.skeleton": "setup 18, but ntu60 has 17",
        "S001C004P001R001A001.skeleton": "camera 4, but ntu60 has 3",
        "again/S001C001P001R001A003.skeleton": "a second file of this name",
    }
    first = folder(tmp_path / "1", FILES)
    clips, bad = read(first, packed(tmp_path / "2.zip", dict.fromkeys(names, b"")))
    assert len(clips) == len(FILES)
    assert [name for name, _ in bad] == list(names)
    assert all(reason.startswith(names[name]) for name, reason in bad)
    assert str(first) in bad[-1][1]


def test_damaged_members_are_reported_and_others_read(tmp_path, monkeypatch):
    names = list(FILES)
    path = packed(tmp_path / "x.zip", FILES, zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    data[data.index(FILES[names[0]]) + 50] ^= 1  # contents
    data[data.index(names[1].encode()) - 30] ^= 1  # local header
    at = data.rindex(names[2].encode()) - 46  # central directory
    data[at + 8] |= 1  # encrypted
    at = data.rindex(names[3].encode()) - 46
    data[at + 10] = 9  # deflate64
    path.write_bytes(data)
    clips, bad = read(path)
    assert [clip.id for clip in clips] == [name[5:-9] for name in sorted(names[4:])]
    reasons = dict(bad)
    assert set(reasons) == set(names[:4])
    assert "CRC" in reasons[names[0]]
    assert "header" in reasons[names[1]]
    assert reasons[names[2]] == "encrypted"
    assert "method 9" in reasons[names[3]]


def test_bombs(tmp_path, monkeypatch):
    monkeypatch.setattr("hocslm_jax.data.prepare.ntu.sources.MAX_BYTES", 1 << 20)
    honest, liar = "S003C001P001R001A001.skeleton", "S003C001P001R001A002.skeleton"
    path = packed(tmp_path / "x.zip", {honest: bytes(2 << 20), liar: bytes(2 << 20)} | FILES)
    data = bytearray(path.read_bytes())
    at = data.rindex(liar.encode()) - 46
    data[at + 24 : at + 28] = (1000).to_bytes(4, "little")  # says that 1000 bytes come out
    path.write_bytes(data)
    clips, bad = read(path)
    assert len(clips) == len(FILES)
    assert bad[0] == (honest, "over 1048576 bytes")
    assert bad[1][0] == liar and "CRC" in bad[1][1]
    clips, bad = read(folder(tmp_path / "x", {honest: bytes(2 << 20)} | FILES))
    assert len(clips) == len(FILES) and bad[0][0] == honest


def test_links_and_files_that_vanish(tmp_path):
    source, gone = folder(tmp_path / "x", FILES), next(iter(FILES))
    (source / "S003C001P001R001A001.skeleton").symlink_to("/etc/passwd")
    (source / "S003C001P001R001A002.skeleton").symlink_to(source / list(FILES)[1])
    (source / "more").symlink_to(tmp_path)
    bad = []
    made = recipe("ntu60", [source], lambda *what: bad.append(what))
    (source / gone).unlink()
    assert sum(1 for shard in made.shards for _ in shard()) == len(FILES)
    assert [name for name, _ in bad] == ["more", "S003C001P001R001A001.skeleton", gone]
    assert "with another --source" in bad[0][1] and bad[1][1] == "a link out of the folder"
    assert "cannot be read" in bad[2][1]


def test_a_worker_that_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(reader, "BATCH", 1)
    made = recipe("ntu60", [folder(tmp_path / "x", FILES)], print, workers=2)
    clips = made.shards[0]()
    next(clips)
    for child in multiprocessing.active_children():
        child.kill()
    with pytest.raises(UserError, match="fewer --workers"):
        list(clips)


def test_unusable_sources(tmp_path):
    cut = packed(tmp_path / "cut.zip", FILES)
    cut.write_bytes(cut.read_bytes()[:-100])
    for source, message in ((tmp_path / "no", "no such folder or archive"), (cut, "unreadable"),
                            (__file__, "unreadable archive")):  # fmt: skip
        with pytest.raises(UserError, match=message):
            read(source)
