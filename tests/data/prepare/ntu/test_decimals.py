"""Numbers read in bulk are bit for bit what `float()` reads."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hocslm_jax.data.prepare.ntu.decimals import read_decimals


def read(*numbers, lead=" "):
    text = (lead + " ".join(numbers) + "\n").encode()
    ends = np.cumsum([len(number) + 1 for number in numbers]) + len(lead) - 1
    return read_decimals(text, ends - [len(number) for number in numbers], ends)


plain = st.from_regex(r"-?[0-9]{1,9}(\.[0-9]{0,9})?", fullmatch=True)
written = st.floats(allow_nan=False, width=32).map(lambda x: f"{x:.7G}")


@given(st.lists(st.one_of(plain, written, st.floats().map(repr)), min_size=1, max_size=30))
def test_as_float(numbers):
    np.testing.assert_array_equal(read(*numbers), [float(number) for number in numbers])


@pytest.mark.parametrize(
    "number",
    ["0", "-0", ".5", "-.5", "5.", "007", "123456789012345", "1234567890123456", "0.12345678901234",
     "9007199254740993", "1E-05", "-3.2E+08", "NaN", "-Infinity", "+1"],
)  # fmt: skip
@pytest.mark.parametrize("lead", ["", 30 * "7 "])
def test_corners(number, lead):
    found, expected = read(number, "1.5", lead=lead), [float(number), 1.5]
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(np.signbit(found), np.signbit(expected))


@pytest.mark.parametrize("number", ["-", ".", "-.", "1.2.3", "1-2", "--1", "1x", "0x1", "E5", "1E"])
def test_not_a_number(number):
    with pytest.raises(ValueError, match="could not convert"):
        read("0.5", number, "2", lead=20 * "0 ")
