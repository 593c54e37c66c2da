"""The small language model: it learns, is written whole, and reads like any other checkpoint."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "train"))
import tiny_run

from hocslm_jax.data.captions import bank
from hocslm_jax.data.tokenizer import load_tokenizer
from hocslm_jax.language.pretrain import corpus, encode_pairs, pretrain
from hocslm_jax.models.qwen3 import read_config

PAIRS = [("wave", "A person waves a hand."), ("kick", "Someone kicks a ball far away.")]


@pytest.fixture(scope="module")
def settings():
    return tiny_run.make_config({**tiny_run.LANGUAGE, "lm.pretrain.steps": 120}).lm


def test_it_learns_and_is_written_once(settings, tmp_path):
    folder = tmp_path / "lm"
    (tmp_path / "lm.partial").mkdir()
    (tmp_path / "lm.partial" / "left by a killed run").touch()
    pretrain(settings, PAIRS, folder)
    report = json.loads((folder / "pretrain.json").read_text())
    assert report["caption_loss"] < 0.5 * np.log(300) and report["sentences"] == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["lm"]
    config, tokenizer = read_config(folder), load_tokenizer(folder)
    assert config.vocab_size == tokenizer.size and config.eos_token_ids == (tokenizer.eos_id,)
    weights = (folder / "model.safetensors").read_bytes()
    pretrain(settings, PAIRS, folder, seed=1)  # is there already
    assert (folder / "model.safetensors").read_bytes() == weights
    assert not (folder / "left by a killed run").exists()


def test_transformers_reads_it(settings, tmp_path):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("torch")
    pretrain(settings, PAIRS, tmp_path / "lm")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "lm")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "lm")
    assert model.num_parameters() > 0 and tokenizer.eos_token_id == model.config.eos_token_id


def test_pairs_are_padded_and_end(settings, tmp_path):
    pretrain(settings, PAIRS, tmp_path / "lm")
    tokenizer = load_tokenizer(tmp_path / "lm")
    data = encode_pairs(tokenizer, PAIRS, 24)
    ends = (data["captions"] >= 0).sum(axis=1) - 1
    assert (data["captions"][[0, 1], ends] == tokenizer.eos_id).all()
    assert max(ends) + 1 == data["captions"].shape[1]


def test_the_corpus_is_the_bank_and_the_training_clips_own(tmp_path):
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
