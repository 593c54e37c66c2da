"""The confusion matrix: drawn for few and for many classes, without touching pyplot."""

import sys

import numpy as np
import pytest
from PIL import Image

from hocslm_jax.eval import figures


def picture(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def confusion(count, wrong=0):
    matrix = np.diag(np.full(count, 9))
    matrix[0, count - 1] = wrong
    return matrix


@pytest.mark.parametrize("count", [1, 10, 21, 120])
def test_drawn_at_any_number_of_classes(tmp_path, count):
    path = tmp_path / "confusion.png"
    figures.save_confusion(confusion(count), [f"class {c}" for c in range(count)], path)
    image = picture(path)
    assert min(image.shape[:2]) > 300 and max(image.shape[:2]) < 1600
    assert path.stat().st_size < 300_000
    assert (image == 255).all(axis=2).mean() < 0.999


@pytest.mark.parametrize("count", [10, 120])
def test_an_error_changes_the_picture(tmp_path, count):
    names = [f"class {c}" for c in range(count)]
    for wrong in (0, 3):
        figures.save_confusion(confusion(count, wrong), names, tmp_path / f"{wrong}.png")
    before, after = picture(tmp_path / "0.png"), picture(tmp_path / "3.png")
    assert before.shape != after.shape or (before != after).any()


def test_a_class_without_clips_is_no_division_by_zero(tmp_path):
    matrix = confusion(4)
    matrix[2] = 0
    with np.errstate(all="raise"):
        figures.save_confusion(matrix, list("abcd"), tmp_path / "confusion.png")


def test_names_in_the_picture_are_not_markup(tmp_path):
    figures.save_confusion(confusion(2), ["$x_{$", "a_{b"], tmp_path / "few.png")
    many = ["$x_{$", *map(str, range(30))]
    figures.save_confusion(confusion(31, wrong=2), many, tmp_path / "many.png")


def test_pyplot_stays_out(tmp_path):
    figures.save_confusion(confusion(3), list("abc"), tmp_path / "confusion.png")
    assert "matplotlib.pyplot" not in vars(figures).values()
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or not pyplot.get_fignums()
