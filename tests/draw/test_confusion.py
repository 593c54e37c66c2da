"""The confusion matrix: drawn for few and for many classes, without touching pyplot."""

import sys
import warnings

import numpy as np
import pytest
from PIL import Image

from hocslm_jax.draw import confusion, fonts


def picture(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def make_matrix(count, wrong=0):
    matrix = np.diag(np.full(count, 9))
    matrix[0, count - 1] = wrong
    return matrix


@pytest.mark.parametrize("count", [1, 10, 41, 120])
def test_drawn_at_any_number_of_classes(tmp_path, count):
    path = tmp_path / "confusion.png"
    confusion.save_confusion(make_matrix(count), [f"class {c}" for c in range(count)], path)
    image = picture(path)
    assert min(image.shape[:2]) > 300 and max(image.shape[:2]) < 1600
    assert path.stat().st_size < 300_000
    assert (image == 255).all(axis=2).mean() < 0.999


@pytest.mark.parametrize("count", [10, 120])
def test_an_error_changes_the_picture(tmp_path, count):
    names = [f"class {c}" for c in range(count)]
    for wrong in (0, 3):
        confusion.save_confusion(make_matrix(count, wrong), names, tmp_path / f"{wrong}.png")
    before, after = picture(tmp_path / "0.png"), picture(tmp_path / "3.png")
    assert before.shape != after.shape or (before != after).any()


def test_class_without_clips_is_no_division_by_zero(tmp_path):
    matrix = make_matrix(4)
    matrix[2] = 0
    with np.errstate(all="raise"):
        confusion.save_confusion(matrix, list("abcd"), tmp_path / "confusion.png")


def test_names_in_the_picture_are_not_markup(tmp_path):
    confusion.save_confusion(make_matrix(2), ["$x_{$", "a_{b"], tmp_path / "few.png")
    many = ["$x_{$", *map(str, range(50))]
    confusion.save_confusion(make_matrix(51, wrong=2), many, tmp_path / "many.png")


def tick_labels(monkeypatch, tmp_path, names):
    """What the vertical axis says, when all warnings are errors."""
    seen = []
    save = confusion.Figure.savefig

    def look(figure, *args, **options):
        save(figure, *args, **options)
        seen.extend(label.get_text() for label in figure.axes[0].get_yticklabels())

    monkeypatch.setattr(confusion.Figure, "savefig", look)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        confusion.save_confusion(make_matrix(len(names)), names, tmp_path / "confusion.png")
    return seen


def test_all_of_27_classes_are_named(monkeypatch, tmp_path):
    names = [f"class {number}" for number in range(27)]
    assert tick_labels(monkeypatch, tmp_path, names) == names


@pytest.mark.parametrize(
    "name", ["坐下", "sit\x1b[2Jdown\x00", "кивать", "جلوس", "\udcff", "x" * 10**5]
)
def test_any_name_is_drawn_or_escaped(monkeypatch, tmp_path, name):
    shown, _ = tick_labels(monkeypatch, tmp_path, [name, "plain"])
    assert shown.isprintable() and len(shown) < 200
    assert shown == name or "\\" in shown or len(name) > 1000
    assert name != "кивать" or shown == name  # the usual font has these


def test_a_font_that_has_the_letters_is_used(monkeypatch):
    own = {fonts.USUAL: frozenset("abc"), "Song": frozenset("坐下"), "Boxes": frozenset()}
    monkeypatch.setattr(fonts, "_letters", own.__getitem__)
    monkeypatch.setattr(fonts, "_installed", lambda: tuple(own))
    assert fonts.families(["ab", "坐"]) == [fonts.USUAL, "Song"]
    assert fonts.families("ab") == [fonts.USUAL]
    assert fonts.drawable("a坐下立") == "a坐下\\u7acb"


def test_pyplot_stays_out(tmp_path):
    confusion.save_confusion(make_matrix(3), list("abc"), tmp_path / "confusion.png")
    assert "matplotlib.pyplot" not in vars(confusion).values()
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or not pyplot.get_fignums()
