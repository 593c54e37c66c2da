"""The small language model is trained, written atomically, and loaded like any checkpoint."""

import contextlib
import functools
import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "train"))
import tiny_run

from hocslm_jax.data.caption_bank import bank
from hocslm_jax.data.tokenizer import load_tokenizer
from hocslm_jax.errors import UserError
from hocslm_jax.files import atomic
from hocslm_jax.language import pretrain as pretraining
from hocslm_jax.language.pretrain import corpus, encode_pairs, pretrain
from hocslm_jax.models.lm import read_config
from hocslm_jax.progress import Progress

PAIRS = [("wave", "A person waves a hand."), ("kick", "Someone kicks a ball far away.")]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The settings, the folder of a trained model, and what was printed meanwhile."""
    settings = tiny_run.make_config({**tiny_run.LANGUAGE, "lm.pretrain.steps": 120}).lm
    folder = tmp_path_factory.mktemp("pretrain") / "lm"
    killed = folder.with_name("lm.partial")
    killed.mkdir()
    (killed / "left by a killed run").touch()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as out:
        patch.setattr(pretraining, "Progress", functools.partial(Progress, every_s=0))
        pretrain(settings, PAIRS, folder)
    return settings, folder, out.getvalue()


def test_it_learns_and_is_written_once(trained):
    settings, folder, _ = trained
    report = json.loads((folder / "pretrain.json").read_text())
    assert report["caption_loss"] < 0.5 * np.log(300) and report["sentences"] == 2
    assert [path.name for path in folder.parent.iterdir()] == ["lm"]
    config, tokenizer = read_config(folder), load_tokenizer(folder)
    assert config.vocab_size == tokenizer.size and config.eos_token_ids == (tokenizer.eos_id,)
    weights = (folder / "model.safetensors").read_bytes()
    pretrain(settings, PAIRS, folder, seed=1)  # exists already
    assert (folder / "model.safetensors").read_bytes() == weights
    assert not (folder / "left by a killed run").exists()


def test_one_folder_is_pretrained_by_one_process(trained, tmp_path):
    held = atomic.held(tmp_path / "lm.lock", "pretrains elsewhere")
    with held, pytest.raises(UserError, match="lm"):
        pretrain(trained[0], PAIRS, tmp_path / "lm")
    assert not (tmp_path / "lm").exists()


def test_it_reports_progress(trained):
    first, *progress, last = trained[2].splitlines()
    assert "120 steps" in first and str(trained[1]) in last
    assert len(progress) == 120 and "step 60/120  loss " in progress[59]


def test_transformers_reads_it(trained):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("torch")
    model = transformers.AutoModelForCausalLM.from_pretrained(trained[1])
    tokenizer = transformers.AutoTokenizer.from_pretrained(trained[1])
    assert model.num_parameters() > 0 and tokenizer.eos_token_id == model.config.eos_token_id


def test_pairs_are_padded_and_end(trained):
    tokenizer = load_tokenizer(trained[1])
    data = encode_pairs(tokenizer, PAIRS, 24)
    ends = (data["captions"] >= 0).sum(axis=1) - 1
    assert (data["captions"][[0, 1], ends] == tokenizer.eos_id).all()
    assert max(ends) + 1 == data["captions"].shape[1]


def test_it_learns_from_every_value_that_a_sentence_could_name(monkeypatch, tmp_path):
    """With one side only, the model would learn to say that side and ignore the vector."""
    read, encode = [], pretraining.encode_pairs

    def watched(tokenizer, pairs, limit):
        read.extend(pairs)
        return encode(tokenizer, pairs, limit)

    monkeypatch.setattr(pretraining, "encode_pairs", watched)
    settings = tiny_run.make_config({**tiny_run.LANGUAGE, "lm.pretrain.steps": 12}).lm
    pairs = [("wave", f"Person {n} waves the left hand.") for n in range(40)]
    pretrain(settings, pairs, tmp_path / "lm")
    sides = [text.split()[4] for _, text in read]
    assert set(sides) == {"left", "right"} and 0.3 < sides.count("left") / len(sides) < 0.7
    assert {text.replace("right", "left") for _, text in read} == {text for _, text in pairs}
    assert all(name == f"wave {side}" for (name, _), side in zip(read, sides, strict=True))


def test_corpus_is_the_bank_and_training_captions(tmp_path):
    class Store(tiny_run.TinyStore):
        path = tmp_path / "1.0.0"
        classes = ("throw", "walk around", "sit down", "carry")

    store, shipped = Store(), bank(Store.classes)
    sentences = sum(len(text.captions) for text in shipped.values())
    assert len(corpus(store, "xview", "auto")) == sentences >= 4 * 12
    train, test = store.ids[0], store.ids[-1]
    lines = [
        {"id": clip, "caption": f"{clip} moves.", "model": "m", "prompt": "p", "time": "t"}
        for clip in (train, test)
    ]
    (tmp_path / "captions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    own = corpus(store, "xview", "auto")[sentences:]
    assert own == [("throw", f"{train} moves.")]  # no caption of a test clip
    assert len(corpus(store, "xview", "bank")) == sentences
