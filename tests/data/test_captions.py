"""Captions are checked, assigned to the right clips, and name their class."""

import json
import re

import numpy as np
import pytest

from hocslm_jax.data import captions
from hocslm_jax.data.caption_bank import bank, named_class
from hocslm_jax.data.captions import Caption, caption_table, read_captions
from hocslm_jax.data.store import Store
from hocslm_jax.data.tokenizer import train_tokenizer
from hocslm_jax.errors import UserError
from hocslm_jax.files import text
from hocslm_jax.graph import UCLA20
from hocslm_jax.language.caption import command

CLASSES = ("walk around", "moonwalk", "throw")  # the second is in no bank
ENTRY = {"id": "c0", "caption": "A person walks.", "model": "m", "prompt": "p", "time": "t"}
SENTENCES = ["A person is performing the action: moonwalk.", "Someone walks around a room."]


def make_store(folder, classes=CLASSES, labels=(0, 0, 1, 2, 2, 2)):
    return Store(
        name="toy",
        graph=UCLA20,
        classes=classes,
        num_persons=1,
        ids=tuple(f"c{i}" for i in range(len(labels))),
        labels=np.array(labels, np.int32),
        columns={},
        protocols={},
        path=folder / "1.0.0",
    )


def write(folder, *entries):
    path = folder / "captions.jsonl"
    lines = [entry if isinstance(entry, str) else json.dumps(entry) for entry in entries]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def own(clip, text):
    return ENTRY | {"id": clip, "caption": text}


@pytest.fixture(scope="module")
def tokens():
    return train_tokenizer(SENTENCES, 300)


@pytest.fixture
def store(tmp_path):
    return make_store(tmp_path)


def test_captions_of_one_clip_stay_together_and_in_order(tmp_path):
    path = write(
        tmp_path, own("b", "One  \n é."), "", own("a", "Two."), own("b", "Three.") | {"extra": 1}
    )
    captions = read_captions(path)
    assert captions["b"] == [
        Caption("b", "One é.", "m", "p", "t"),
        Caption("b", "Three.", "m", "p", "t"),
    ]
    assert [caption.caption for caption in captions["a"]] == ["Two."]
    assert list(captions) == ["b", "a"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"id": "c1", "cap', "JSON"),
        ("[1, 2]", "JSON"),
        ("[" * 100_000, "JSON"),
        (json.dumps({k: v for k, v in ENTRY.items() if k not in ("time", "id")}), "id, time miss"),
        (json.dumps(ENTRY | {"caption": None}), "caption missing or not text"),
        (json.dumps(ENTRY | {"model": 3}), "model missing or not text"),
        (json.dumps(ENTRY | {"caption": " \t "}), "empty id or caption"),
        (json.dumps(ENTRY | {"id": ""}), "empty id or caption"),
        (json.dumps(ENTRY | {"caption": "half a \ud83d"}), "Unicode"),
    ],
)
def test_a_bad_line_is_named_by_its_number(tmp_path, line, message):
    path = write(tmp_path, ENTRY, "", line)
    with pytest.raises(UserError, match=rf"captions\.jsonl:3: .*{message}") as error:
        read_captions(path)
    assert "\n" not in str(error.value)


def test_unreadable_files_are_user_errors(tmp_path):
    with pytest.raises(UserError, match=r"absent\.jsonl: no such file"):
        read_captions(tmp_path / "absent.jsonl")
    with pytest.raises(UserError, match="is not a plain file"):
        read_captions(tmp_path)
    (tmp_path / "latin.jsonl").write_bytes(json.dumps(ENTRY).encode()[:-2] + b'\xe9"}\n')
    with pytest.raises(UserError, match=r"latin\.jsonl is not UTF-8 text: byte 0xe9 in line 1"):
        read_captions(tmp_path / "latin.jsonl")


def test_a_file_may_hold_four_captions_of_each_clip_of_ntu120(tmp_path, monkeypatch):
    caption = "A person raises the right hand to the mouth and drinks from a cup." * 2
    record = own("S001C001P001R001A001", caption) | {"model": "Qwen/Qwen3-VL-8B-Instruct"}
    record |= {"prompt": command.PROMPT, "time": "2026-01-31T12:00:00+00:00"}
    size = len(write(tmp_path, record).read_bytes())
    assert text.MAX_BYTES < 4 * 114_480 * size < captions.MAX_BYTES  # more than of other texts
    monkeypatch.setattr(captions, "MAX_BYTES", size - 1)
    with pytest.raises(UserError, match="too many"):
        read_captions(tmp_path / "captions.jsonl")


def test_classes_share_their_sentences_and_clips_have_their_own(store, tokens):
    folder = store.path.parent
    write(
        folder, own("c1", "He strolls."), own("c5", "B."), own("c1", "He strolls."), own("c1", "C.")
    )
    table = caption_table(store, tokens, 300)
    texts = bank(CLASSES)
    expected = [
        texts["walk around"].captions, ("He strolls.", "C."), texts["moonwalk"].captions,
        texts["throw"].captions, texts["throw"].captions, ("B.",),
    ]  # fmt: skip
    assert [table.sentences(row) for row in range(len(store))] == expected
    assert table.start[3] == table.start[4] and len(set(table.texts)) == len(table.texts)
    assert (table.num_from_bank, table.num_stray, table.num_cut) == (4, 0, 0)
    assert table.template_classes == ("moonwalk",)


def test_rows_of_ids_are_the_sentences_in_full_with_eos_and_padding(store, tokens):
    table = caption_table(store, tokens, 300)
    assert table.tokens.dtype == table.lengths.dtype == table.start.dtype == np.int32
    assert table.tokens.shape == (len(table.texts), table.lengths.max())
    for row, length, sentence in zip(table.tokens, table.lengths, table.texts, strict=True):
        assert row[length - 1] == tokens.eos_id and (row[length:] == tokens.pad_id).all()
        assert tokens.decode(row[: length - 1]) == sentence


def test_sentences_beyond_the_limit_are_cut_at_a_word_and_counted(store, tokens):
    write(store.path.parent, *(own(f"c{i}", "word " * (2 + 9 * (i > 3))) for i in range(6)))
    table = caption_table(store, tokens, 16, "clips")
    long = table.start[4]
    assert table.num_cut == 1  # c4 and c5 share the one long sentence
    assert table.tokens.shape[1] <= 16 and table.lengths[long] <= 16
    assert re.fullmatch("word( word)+", tokens.decode(table.tokens[long]))
    assert table.texts[long] == ("word " * 11).strip()


def test_draws_come_from_the_rows_own_sentences(store, tokens):
    table, rng = caption_table(store, tokens, 300), np.random.default_rng(0)
    drawn = {tokens.decode(table.draw(3, rng)[0]) for _ in range(300)}
    assert drawn == set(table.sentences(3))
    ids, lengths = table.draw(np.array([0, 2, 3]), rng)
    assert ids.shape == (3, table.tokens.shape[1]) and lengths.shape == (3,)
    assert [tokens.decode(row) in table.sentences(r) for row, r in zip(ids, (0, 2, 3), strict=True)]
    first, second = (table.draw(3, np.random.default_rng(5)) for _ in range(2))
    assert (first[0] == second[0]).all() and first[1] == second[1]


def test_a_mirrored_clip_has_the_sentence_with_left_and_right_exchanged(store, tokens):
    texts = ("Left hand up, right away.", "Someone jumps.", "The right foot passes the left one.")
    write(store.path.parent, *(own(store.ids[row], text) for row, text in enumerate(texts)))
    table = caption_table(store, tokens, 300, mirrored=True)
    wanted = ("Right hand up, right away.", texts[1], "The left foot passes the right one.")
    rng = np.random.default_rng(0)
    for row, (plain, other) in enumerate(zip(texts, wanted, strict=True)):
        for mirrored, sentence in ((False, plain), (True, other)):
            ids, length = table.draw(row, rng, mirrored)
            assert tokens.decode(ids[: length - 1]) == sentence
        assert table.sentences(row) == (plain,)


def test_shuffling_permutes_sentences_of_the_given_rows(tmp_path, tokens):
    store = make_store(tmp_path, labels=[i % 3 for i in range(60)])
    write(tmp_path, *(own(f"c{i}", f"Sentence {i}.") for i in range(60)))
    rows = np.arange(0, 60, 2)
    plain = caption_table(store, tokens, 40)
    mixed, again, other = (
        caption_table(store, tokens, 40, shuffled_seed=seed, rows=rows) for seed in (1, 1, 2)
    )
    of = [[table.sentences(row) for row in range(60)] for table in (plain, mixed, again, other)]
    assert of[1] == of[2] != of[3]
    assert of[1][1::2] == of[0][1::2]
    assert of[1][::2] != of[0][::2] and sorted(of[1][::2]) == sorted(of[0][::2])


def test_a_shuffled_bank_swaps_classes(tmp_path, tokens):
    store = make_store(tmp_path, labels=[i % 3 for i in range(300)])
    table = caption_table(store, tokens, 40, "bank", shuffled_seed=0)
    texts = bank(CLASSES)
    got = np.array([CLASSES.index(named_class(table.sentences(r)[0], texts)) for r in range(300)])
    assert (np.bincount(got) == 100).all()
    assert 0.2 < (got == store.labels).mean() < 0.47


def test_the_bank_alone_does_not_read_the_clips_captions(store, tokens):
    write(store.path.parent, "damaged")
    assert caption_table(store, tokens, 60, "bank").num_from_bank == len(store)
    with pytest.raises(UserError, match=r"captions\.jsonl:1"):
        caption_table(store, tokens, 60)


def test_source_clips_needs_captions_of_all_rows(store, tokens):
    with pytest.raises(UserError, match=r"captions\.jsonl does not exist"):
        caption_table(store, tokens, 60, "clips")
    write(store.path.parent, own("c0", "A."), own("c3", "B."))
    with pytest.raises(UserError, match="4 of 6 clips have no caption, c1 for example; "):
        caption_table(store, tokens, 60, "clips")
    table = caption_table(store, tokens, 60, "clips", rows=np.array([0, 3]))
    assert table.count.tolist() == [1, 0, 0, 1, 0, 0] and table.texts == ("A.", "B.")
    assert (table.num_from_bank, table.template_classes) == (0, ())
    with pytest.raises(ValueError):
        table.draw(1, np.random.default_rng(0))


def test_captions_of_unknown_clips_are_counted(store, tokens):
    write(store.path.parent, own("x", "A."), own("c3", "B."), own("x", "C."), own("y", "D."))
    assert caption_table(store, tokens, 60).num_stray == 3


@pytest.mark.parametrize("entries", [[], [own("x", "A.")]])
def test_a_file_about_no_clip_is_refused(store, tokens, entries):
    write(store.path.parent, *entries)
    with pytest.raises(UserError, match="describes none of the 6 clips of toy"):
        caption_table(store, tokens, 60)
