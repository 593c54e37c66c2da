"""A short run of the fuzzer over every parser: no traceback, no hang, bounded memory."""

import pytest

from benchmarks import fuzz

TARGETS = fuzz.targets()


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_files_end_in_the_promised_exceptions(tmp_path, name):
    assert fuzz.run(TARGETS[name], tmp_path, seed=1, executions=2000, seconds=1.0) > 5


@pytest.mark.parametrize("name", TARGETS)
def test_good_files_are_read(tmp_path, name):
    target = TARGETS[name]
    if name in ("score pickle", "safetensors"):  # they need labels, or a model, beside them
        return
    for number, seed in enumerate(target.seeds):
        path = tmp_path / f"{number}{target.suffix}"
        path.write_bytes(seed)
        target.act(path)


def test_fuzzer_finds_a_careless_parser(tmp_path):
    def careless(path):
        return int(path.read_bytes()) and None

    with pytest.raises(AssertionError, match="broken: raised ValueError"):
        fuzz.run(fuzz.Target(careless, (b"12",)), tmp_path, 0, 1000)
