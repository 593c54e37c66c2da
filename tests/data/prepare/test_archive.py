"""Archives are read without extraction, and hostile or damaged ones end in one clear line."""

import io
import os
import struct
import tarfile
import zipfile

import pytest

from hocslm_jax.data.prepare.archive import Limits, fingerprint, read_members
from hocslm_jax.errors import UserError

FILES = {"set/b.json": b"bb", "set/a.json": b"a", "set/readme.txt": b"no", "set/._a.json": b"mac"}


def make_tar(path, files, mode="w:xz", **fields):
    with tarfile.open(path, mode) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            for key, value in fields.items():
                setattr(info, key, value)
            archive.addfile(info, io.BytesIO(data))
    return path


def make_zip(path, files):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def make_folder(path, files):
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def read(source, **limits):
    return list(read_members(source, (".json",), Limits(**limits)))


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_tar_yields_wanted_members_in_its_own_order(tmp_path, mode):
    source = make_tar(tmp_path / "a.tar", FILES, mode)
    assert read(source) == [("set/b.json", b"bb"), ("set/a.json", b"a")]


def test_zip_and_folder_yield_in_name_order(tmp_path):
    wanted = [("set/a.json", b"a"), ("set/b.json", b"bb")]
    assert read(make_zip(tmp_path / "a.zip", FILES)) == wanted
    assert read(make_folder(tmp_path / "folder", FILES)) == wanted


@pytest.mark.parametrize("name", ["/etc/x.json", "../x.json", "a/../../x.json", "C:\\x.json"])
@pytest.mark.parametrize("make", [make_tar, make_zip])
def test_names_that_leave_the_archive_are_refused(tmp_path, make, name):
    source = make(tmp_path / "bad", {"ok.json": b"1", name: b"2"})
    with pytest.raises(UserError, match=r"bad: .*x\.json.*would leave"):
        read(source)


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE]
)
def test_tar_links_and_devices_are_refused(tmp_path, kind):
    source = make_tar(tmp_path / "bad.tar", {"x.json": b""}, type=kind, linkname="/etc/passwd")
    with pytest.raises(UserError, match=r"bad\.tar: x\.json is a link or device"):
        read(source)


def test_zip_symlink_is_refused(tmp_path):
    info = zipfile.ZipInfo("x.json")
    info.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(UserError, match="link or device"):
        read(tmp_path / "bad.zip")


def test_link_out_of_a_folder_is_refused_and_one_inside_is_read(tmp_path):
    folder = make_folder(tmp_path / "folder", {"a.json": b"a"})
    os.symlink("a.json", folder / "b.json")
    assert read(folder) == [("a.json", b"a"), ("b.json", b"a")]
    (tmp_path / "secret.json").write_text("s")
    os.symlink(tmp_path / "secret.json", folder / "c.json")
    with pytest.raises(UserError, match=r"c\.json is a link out of the folder"):
        read(folder)


@pytest.mark.parametrize("make", [make_tar, make_zip, make_folder])
def test_limits_on_members_and_bytes(tmp_path, make):
    files = {f"{i}.json": b"0" * 1000 for i in range(5)}
    source = make(tmp_path / "bomb", files)
    assert len(read(source, members=5, member_bytes=1000, total_bytes=5000)) == 5
    for limits in ({"members": 4}, {"member_bytes": 999}, {"total_bytes": 4999}):
        with pytest.raises(UserError, match=r"bomb: '\d\.json'.*refused"):
            read(source, **limits)


def test_unwanted_member_of_a_tar_counts_too(tmp_path):
    source = make_tar(tmp_path / "bomb.tar", {"x.bin": b"0" * 5000, "a.json": b"a"})
    with pytest.raises(UserError, match=r"x\.bin"):
        read(source, total_bytes=4000)


def test_zip_member_yields_at_most_its_declared_size(tmp_path):
    source = make_zip(tmp_path / "lie.zip", {"a.json": b"0" * 100_000})
    data = bytearray(source.read_bytes())
    for signature, offset in ((b"PK\x01\x02", 24), (b"PK\x03\x04", 22)):
        struct.pack_into("<I", data, data.index(signature) + offset, 10)
    source.write_bytes(data)
    with pytest.raises(UserError, match=r"lie\.zip: unreadable"):
        read(source, member_bytes=50)


def test_huge_extended_header_of_a_tar_is_refused(tmp_path):
    with tarfile.open(tmp_path / "pax.tar", "w:gz", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("a.json")
        info.pax_headers = {"comment": "x" * (2 << 20)}
        archive.addfile(info)
    with pytest.raises(UserError, match="extended header"):
        read(tmp_path / "pax.tar")


@pytest.mark.parametrize("mode", ["w:xz", "w:gz"])
def test_truncated_archive_names_the_last_good_member(tmp_path, mode):
    files = {f"{i}.json": os.urandom(20_000) for i in range(5)}
    source = make_tar(tmp_path / "cut.tar", files, mode)
    source.write_bytes(source.read_bytes()[:60_000])
    with pytest.raises(UserError, match=r"cut\.tar: unreadable archive after \d\.json"):
        read(source)


def test_corrupt_zip_member_and_foreign_file(tmp_path):
    source = make_zip(tmp_path / "bad.zip", {"a.json": os.urandom(5000)})
    data = bytearray(source.read_bytes())
    data[2000] ^= 0xFF
    source.write_bytes(data)
    with pytest.raises(UserError, match=r"bad\.zip: unreadable"):
        read(source)
    (tmp_path / "x.tar").write_bytes(b"this is no archive" * 100)
    with pytest.raises(UserError, match=r"x\.tar: unreadable"):
        read(tmp_path / "x.tar")
    with pytest.raises(UserError, match="no such folder or archive"):
        read(tmp_path / "absent.zip")


def test_fingerprint_follows_the_content(tmp_path):
    archive = make_zip(tmp_path / "a.zip", FILES)
    folder = make_folder(tmp_path / "folder", FILES)
    before = fingerprint(archive), fingerprint(folder)
    assert before == (fingerprint(archive), fingerprint(folder))
    make_zip(archive, FILES | {"set/c.json": b"c"})
    (folder / "set/a.json").write_bytes(b"longer")
    assert fingerprint(archive) != before[0] and fingerprint(folder) != before[1]


def test_names_with_backslashes_are_read_as_paths(tmp_path):
    source = make_zip(tmp_path / "w.zip", {"set\\b.json": b"b", "__MACOSX\\b.json": b"mac"})
    assert read(source) == [("set/b.json", b"b")]
    with pytest.raises(UserError, match="would leave the archive's folder"):
        read(make_zip(tmp_path / "up.zip", {"..\\b.json": b"b"}))


@pytest.mark.parametrize(
    ("at", "value"),
    [(6, 99), (4, 0xFF), (8, 1), (10, 77), (42, 0xFFFFFFFF), (28, 0xFFFF)],
    ids=["version", "made by", "encrypted", "method", "offset", "length of the name"],
)
def test_zips_with_odd_directories_are_one_line(tmp_path, at, value):
    """Each field of the central directory's entry in turn."""
    source = make_zip(tmp_path / "odd.zip", {"a.json": b"0" * 100})
    data = bytearray(source.read_bytes())
    size = 4 if value > 0xFFFF else 2
    start = data.index(b"PK\x01\x02") + at
    data[start : start + size] = value.to_bytes(size, "little")
    source.write_bytes(data)
    try:
        assert read(source) in ([("a.json", b"0" * 100)], [])
    except UserError as error:
        assert str(error).startswith(f"{source}: ")
