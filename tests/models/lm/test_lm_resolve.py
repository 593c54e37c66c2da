"""Sources of a language model's files: a folder, the hub, or the hub's cache."""

import pytest

from hocslm_jax.errors import UserError
from hocslm_jax.models.lm import read_config, resolve


def test_a_folder_resolves_to_itself(tmp_path):
    assert resolve(tmp_path) == tmp_path
    assert resolve(str(tmp_path)) == tmp_path


def test_a_file_of_an_installed_package(tmp_path, monkeypatch):
    (tmp_path / "some_words").mkdir()
    (tmp_path / "some_words/__init__.py").write_text("raise RuntimeError('it was imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert resolve("some_words:tiny.gguf") == tmp_path / "some_words/tiny.gguf"
    assert resolve("some_words/tiny.gguf").parts == ("some_words", "tiny.gguf")
    with pytest.raises(UserError, match="pip install --no-deps no-words"):
        resolve("no_words:tiny.gguf")


@pytest.mark.parametrize("name", ["/no/such/folder", "qwen", "../a/b", "a/b/c"])
def test_neither_folder_nor_id_is_refused(name):
    with pytest.raises(UserError, match="neither a folder nor a hub id"):
        resolve(name)


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """An empty cache of the hub, without a network connection."""
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    return tmp_path


def test_hub_ids_without_a_connection(offline):
    with pytest.raises(UserError, match=r"Qwen/Qwen3-0\.6B is not a local folder") as caught:
        resolve("Qwen/Qwen3-0.6B")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("error", [RuntimeError("proxy said no\nat length"), OSError()])
def test_download_errors_give_one_line(error, monkeypatch):
    hub = pytest.importorskip("huggingface_hub")

    def fail(name, allow_patterns):
        raise error

    monkeypatch.setattr(hub, "snapshot_download", fail)
    with pytest.raises(UserError, match="cannot be fetched") as caught:
        resolve("Qwen/Qwen3-4B")
    assert "\n" not in str(caught.value)


def test_a_cached_hub_id_needs_no_connection(offline):
    cached = offline / "models--Qwen--Qwen3-0.6B"
    commit = "0123456789" * 4
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text(commit)
    snapshot = cached / "snapshots" / commit
    snapshot.mkdir(parents=True)
    assert resolve("Qwen/Qwen3-0.6B").samefile(snapshot)


def test_a_path_may_start_with_a_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "model").mkdir()
    assert resolve("~/model") == tmp_path / "model"
    assert resolve("~/tiny.gguf") == tmp_path / "tiny.gguf"
    with pytest.raises(UserError, match="neither a folder"):
        resolve("~nobody-here/model")


@pytest.mark.parametrize("name", ["tiny.txt/tiny.gguf", "a\0b.gguf", "tiny.gguf"])
def test_a_missing_gguf_file_is_reported(tmp_path, name):
    (tmp_path / "tiny.txt").write_text("")
    with pytest.raises(UserError, match="there is no GGUF file"):
        read_config(resolve(tmp_path / name))
