"""`caption --audit`: captions are compared with the classes of their clips, without a server."""

import json

import numpy as np
import pytest

from hocslm_jax.__main__ import main
from hocslm_jax.data.caption_bank import bank
from hocslm_jax.language.caption.audit import Likeness, audit, table

CLAP = "S001C001P001R001A010"
COUNT = "S001C001P001R001A074"


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def record(clip, caption, **more):
    return {"id": clip, "caption": caption, "model": "m", "prompt": "p", "time": "t"} | more


def test_classes_with_least_agreement_come_first():
    texts = bank(["clapping", "counting money", "throw", "drop"], "ntu120")
    captions = {
        "a1": ["A person is clapping both hands.", "Someone applauds."],
        "a2": ["A person throws a ball far away."],
        "b1": ["A person is counting money, one note after another."],
        "b2": ["A person flicks through a stack of notes with the thumb."],  # names no class
        "b3": ["I cannot see."],
        "c1": ["A person throws a ball far away."],
        "x": ["A person throws."],  # of unknown class
    }
    class_of = {"a1": "clapping", "a2": "clapping", "c1": "throw", "lost": "throw"}
    class_of |= dict.fromkeys(("b1", "b2", "b3"), "counting money")
    rows = audit(captions, class_of, texts, refused={"lost", "stray"})
    assert list(rows) == ["counting money", "clapping", "throw"]
    money, clapping, throw = rows.values()
    assert (money.clips, money.captions, money.named, money.alike) == (3, 3, 1, 2)
    assert money.doubtful == 1 and money.agreement == pytest.approx(1 / 3)
    assert (clapping.clips, clapping.captions, clapping.named, clapping.named_other) == (2, 3, 2, 1)
    assert (clapping.taken_for, clapping.taken, clapping.repeated) == ("throw", 1, 1)
    assert (throw.named, throw.refused, throw.repeated) == (1, 1, 1)
    lines = table(rows)
    assert [line.split("  ")[0] for line in lines[1:]] == [*rows, "all classes"]
    assert "33%" in lines[1] and "throw (1)" in lines[2]
    assert lines[-1].split()[2:5] == ["7", "4", "57%"]


def test_the_class_is_found_from_the_words_of_a_caption():
    texts = bank(["sit down", "stand up", "carry", "walk around"], "nw_ucla")
    likeness = Likeness(texts)
    right = [
        likeness.nearest(sentence) == name
        for name, text in texts.items()
        for sentence in text.captions
    ]
    assert np.mean(right) > 0.95
    assert likeness.nearest("Zebras!") is None and likeness.nearest("") is None


def test_classes_from_ntu_names(tmp_path, capsys):
    path = write(
        tmp_path / "captions.jsonl",
        [
            record(CLAP, "A person claps."),
            record(COUNT, "A person claps with both hands."),
            record("other", "A person claps."),
        ],
    )
    refused = [record("S001C001P001R001A007", "", reason="empty"), record(CLAP, "", reason="empty")]
    write(tmp_path / "captions.rejected.jsonl", refused)
    assert main(["caption", "--audit", str(path), "--out", str(tmp_path / "audit.json")]) == 0
    out = capsys.readouterr().out
    assert "left out, of unknown class: 1 (other)" in out
    found = json.loads((tmp_path / "audit.json").read_text())
    assert found["unknown"] == 1
    by_class = {row["class"]: row for row in found["classes"]}
    assert by_class["counting money"]["agreement"] == 0
    assert by_class["counting money"]["taken_for"] == "clapping"
    assert by_class["clapping"]["agreement"] == 1 and by_class["clapping"]["refused"] == 0
    assert by_class["throw"]["refused"] == 1 and by_class["throw"]["captions"] == 0


def test_classes_from_a_table(tmp_path, capsys):
    path = write(tmp_path / "captions.jsonl", [record("a", "A moonwalk."), record("b", "A walk.")])
    (tmp_path / "labels.csv").write_text("id,label\na,moonwalk\nb,throw\n")
    assert main(["caption", "--audit", str(path), "--labels", str(tmp_path / "labels.csv")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("throw") and lines[2].startswith("moonwalk") and "100%" in lines[2]


def test_classes_from_the_dataset_beside_the_file(tmp_path, capsys, monkeypatch):
    from hocslm_jax.language.caption import audit as module

    class Store:
        name, classes, ids, labels = "nw_ucla", ("throw", "carry"), ("a", "b"), np.array([1, 0])

    asked = []
    monkeypatch.setattr(module, "open_store", lambda *names: asked.append(names) or Store)
    path = write(tmp_path / "ucla/captions.jsonl", [record("a", "A person carries it.")])
    (tmp_path / "ucla/index.json").write_text("{}")
    assert main(["caption", "--audit", str(path)]) == 0
    assert asked == [("ucla", tmp_path.resolve())]
    assert capsys.readouterr().out.splitlines()[1].startswith("carry")


def test_clips_of_unknown_class_are_reported(tmp_path, capsys):
    path = write(tmp_path / "captions.jsonl", [record("a", "A person claps.")])
    assert main(["caption", "--audit", str(path)]) == 2
    assert "name it with --labels" in capsys.readouterr().err
    assert main(["caption", "--audit", str(tmp_path / "absent.jsonl")]) == 2
    assert "no such file" in capsys.readouterr().err


def test_an_audit_never_replaces_captions(tmp_path, capsys):
    path = write(tmp_path / "captions.jsonl", [record(CLAP, "A person claps.")])
    plain = write(tmp_path / "captions.txt", [record(CLAP, "A person claps.")])
    for given, out in ((path, path), (plain, plain), (plain, path), (path, tmp_path / "new.jsonl")):
        assert main(["caption", "--audit", str(given), "--out", str(out)]) == 2
        assert "name a file like audit.json" in capsys.readouterr().err
    assert json.loads(path.read_text())["id"] == json.loads(plain.read_text())["id"] == CLAP
    assert main(["caption", "--audit", str(path), "--out", str(tmp_path / "new/audit.json")]) == 0
    assert (tmp_path / "new/audit.json").is_file()


def test_files_that_cannot_be_audited_are_refused(tmp_path, capsys):
    path = write(tmp_path / "captions.jsonl", [])
    write(tmp_path / "captions.rejected.jsonl", [record(CLAP, "", reason="empty")])
    assert main(["caption", "--audit", str(path)]) == 2
    assert "has no captions" in capsys.readouterr().err
    write(path, [record("a", "A person claps.")])
    (tmp_path / "labels.csv").write_text("id,label\na,\nb,throw\n")
    assert main(["caption", "--audit", str(path), "--labels", str(tmp_path / "labels.csv")]) == 2
    assert "labels.csv has none of their ids" in capsys.readouterr().err


def test_class_names_without_letters_are_accepted():
    texts = bank(["(.*)", "[a-z]+\\", "throw"])
    captions = {"a": ["A person throws a ball (.*)."], "b": ["[a-z]+\\"], "c": ["..."]}
    rows = audit(captions, {"a": "(.*)", "b": "[a-z]+\\", "c": "throw"}, texts)
    assert rows["(.*)"].named == 0 and rows["(.*)"].named_other == 1
    assert rows["[a-z]+\\"].named == 1 and table(rows)
