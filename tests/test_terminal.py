"""Output that reaches the terminal, and the exit status of commands."""

import errno
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hocslm_jax import terminal
from hocslm_jax.errors import UserError

ROOT = Path(__file__).resolve().parents[1]


def ended(capsys, act):
    status = terminal.run(act)
    found = capsys.readouterr()
    return status, found.out, found.err


def test_error_is_one_short_line_with_its_advice(capsys):
    def act():
        raise UserError(f"weights.bin: {'tensor, ' * 4000}are missing; fetch the file again")

    status, out, err = ended(capsys, act)
    assert (status, out) == (2, "") and err.startswith("error: weights.bin: tensor, ")
    assert err.endswith("are missing; fetch the file again\n") and len(err) <= 310


def test_a_long_list_is_cut(capsys):
    def act():
        raise UserError("\n".join(f"fault {number}" for number in range(500)))

    _, _, err = ended(capsys, act)
    assert err.splitlines()[-1] == "  … and 480 more" and len(err.splitlines()) == 21


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_names_cannot_send_commands_to_the_terminal(capsys, stream):
    name = "sit\x1b[2J\x1b]0;owned\x07 down\x9b31m \u202egnp.\u202c 坐下 naïve\ttab"

    def act():
        print(name, "\udcff", file=getattr(sys, stream))

    _, *texts = ended(capsys, act)
    text = "".join(texts)
    assert "\x1b" not in text and "\x07" not in text and "\x9b" not in text
    assert "\u202e" not in text and "\\u202e" in text
    assert "sit\\u001b[2J" in text and "坐下 naïve\ttab" in text and "\\udcff" in text


def test_lines_of_json_stay_json(capsys):
    line = {"class": "sit\x9b \u202e坐\x1b"}
    _, out, _ = ended(capsys, lambda: print(json.dumps(line, ensure_ascii=False)))
    assert json.loads(out) == line and "\x9b" not in out


def test_a_terminal_that_lacks_a_letter():
    stream = io.TextIOWrapper(io.BytesIO(), encoding="latin-1")
    terminal.Printable(stream, "\n").write("é 坐 😀\n")
    stream.flush()
    assert stream.buffer.getvalue() == "é \\u5750 \\ud83d\\ude00\n".encode("latin-1")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_what_the_machine_refuses_is_one_line(capsys, number):
    def act():
        raise OSError(number, os.strerror(number), "runs/a/scores.npz")

    status, _, err = ended(capsys, act)
    assert status == 2 and err.startswith(f"error: runs/a/scores.npz: {os.strerror(number)};")
    assert len(err.splitlines()) == 1


def test_a_bug_keeps_its_traceback():
    with pytest.raises(ValueError, match="bug"):
        terminal.run(lambda: int("bug"))
    with pytest.raises(FileNotFoundError):
        terminal.run(lambda: os.stat("/nowhere/at/all"))


@pytest.mark.parametrize("lines", [1, 100_000])
def test_a_reader_that_goes_away_ends_it_quietly(lines):
    code = (
        "import sys, time; from hocslm_jax import terminal\n"
        "def act():\n"
        f"    for _ in range({lines}): print('one line', flush=True)\n"
        "    time.sleep(0.5); print('one more')\n"
        "sys.exit(terminal.run(act))"
    )
    command = f'"{sys.executable}" -c "{code}" | head -1; exit ${{PIPESTATUS[0]}}'
    done = subprocess.run(
        ["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "one line\n" and done.stderr == "", done.stderr
    assert done.returncode == terminal.CLOSED


@pytest.mark.parametrize("arguments", ["--help", "ensemble --help"])
def test_help_to_a_reader_that_goes_away(arguments):
    command = f'"{sys.executable}" -m hocslm_jax {arguments} | true; exit ${{PIPESTATUS[0]}}'
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True)
    assert done.stderr == "" and done.returncode in (0, terminal.CLOSED)
