"""Pickles of arrays and plain containers, read by a machine that runs nothing they name.

In: a file that pickle wrote with protocol 2 to 5. Out: its dicts, lists, tuples, strings, bytes,
numbers, booleans and None, with an Array for every ndarray. Strings longer than a name stay in the
file, so the contents of a 1 GB file take little memory. Nothing is imported or called for a pickle:
the few names that NumPy's own pickles hold are compared as text, any other is refused.
"""

import os
import pickletools
import struct
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from hocslm_jax.data.prepare.importers.pickled_arrays import (
    CALLS,
    GLOBALS,
    Blob,
    Global,
    Refused,
    build,
)
from hocslm_jax.errors import UserError

MAX_BYTES = 512 << 20  # that the objects may take; those of NTU 120 take two thirds of it
INLINE_BYTES = 256  # longer strings stay in the file

_MALFORMED = (IndexError, KeyError, TypeError, ValueError)


class _Damaged(ValueError):
    """Bytes that cannot be a whole pickle."""


def read_pickle(path: Path) -> object:
    """The object in a pickle file, every ndarray in it as an `Array`.

    Raises:
      UserError: no such file, a damaged or truncated pickle, or one that holds anything else than
        arrays and plain containers; the message names what.
    """
    try:
        with path.open("rb") as file:
            return _Machine(file).run()
    except Refused as error:
        raise UserError(
            f"{path}: holds {error}, which is refused; save it again with nothing but NumPy arrays "
            "and plain containers"
        ) from None
    except _MALFORMED as error:
        reason = error if isinstance(error, _Damaged) else "its instructions make no sense"
        raise UserError(
            f"{path}: damaged, or no pickle of protocol 2 to 5 ({reason}); fetch it again"
        ) from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None


class _Machine:
    """The stack machine that a pickle drives, less every instruction that could have an effect."""

    def __init__(self, file: BinaryIO):
        self.file, self.size = file, os.fstat(file.fileno()).st_size
        self.stack: list = []
        self.below: list[list] = []  # the stacks under each mark
        self.memo: dict[int, object] = {}

    def run(self) -> object:
        if self.file.read(1) != b"\x80" or self.number(1) not in (2, 3, 4, 5):
            raise _Damaged("it starts otherwise")
        read = self.file.read
        room = MAX_BYTES
        while room > 0:
            code = read(1)
            room -= _BYTES.get(code, 40)
            if code == b".":
                (result,) = self.stack
                return result
            if code not in _ACTIONS:
                if not code:
                    raise _Damaged("it ends early")
                raise Refused(f"the pickle instruction {_instruction(code)}")
            _ACTIONS[code](self)
        raise Refused(f"objects of over {MAX_BYTES} bytes")

    def take(self, count: int) -> bytes:
        data = self.file.read(count)
        if len(data) != count:
            raise _Damaged("it ends early")
        return data

    def number(self, count: int, signed: bool = False) -> int:
        return int.from_bytes(self.take(count), "little", signed=signed)

    def string(self, count: int, text: bool) -> str | bytes | Blob:
        size = self.number(count)
        if size <= INLINE_BYTES:
            data = self.take(size)
            return data.decode() if text else data
        offset = self.file.tell()
        if size > self.size - offset:
            raise _Damaged("it ends early")
        self.file.seek(size, os.SEEK_CUR)
        return Blob(offset, size, text)

    def line(self) -> str:
        data = self.file.readline(INLINE_BYTES)
        if not data.endswith(b"\n"):
            raise _Damaged("it ends in a name")
        return data[:-1].decode()

    def pop(self, count: int) -> list:
        if count > len(self.stack):
            raise IndexError
        items = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return items

    def pop_mark(self) -> list:
        items, self.stack = self.stack, self.below.pop()
        return items


def _instruction(code: bytes) -> str:
    names = (op.name for op in pickletools.opcodes if op.code.encode("latin1") == code)
    return next(names, repr(code))


def _push(make: Callable[[_Machine], object]) -> Callable[[_Machine], None]:
    """The action that pushes what `make` reads or creates."""

    def action(machine):
        value = make(machine)  # first, since it may change which stack is the current one
        machine.stack.append(value)

    return action


def _mark(machine: _Machine) -> None:
    machine.below.append(machine.stack)
    machine.stack = []


def _extend(machine: _Machine, items: list) -> None:
    if not isinstance(machine.stack[-1], list):
        raise Refused("a list operation on something else")
    machine.stack[-1].extend(items)


def _update(machine: _Machine, items: list) -> None:
    if not isinstance(machine.stack[-1], dict):
        raise Refused("a dict operation on something else")
    keys = items[::2]
    for key in keys:  # not tuples: to hash one that holds another twice, and so on, takes for ever
        if not isinstance(key, str) and not (isinstance(key, int) and abs(key) < 2**31):
            raise Refused(f"a dict key that is a {type(key).__name__}")
    machine.stack[-1].update(zip(keys, items[1::2], strict=True))


def _global(module: object, name: object) -> Global:
    if not (isinstance(module, str) and isinstance(name, str)):
        raise Refused("a global whose name is no text")
    if (module, name) not in GLOBALS:
        raise Refused(f"the global {f'{module}.{name}'[:100]!r}")
    return GLOBALS[module, name]


def _call(function: object, arguments: object) -> object:
    name = function.name if isinstance(function, Global) else None
    if name not in CALLS or not isinstance(arguments, tuple):
        raise Refused(f"a call of {name or 'no function'}")
    return CALLS[name](*arguments)


def _build(machine: _Machine) -> None:
    state = machine.stack.pop()
    build(machine.stack[-1], state)


def _put(machine: _Machine, slot: int) -> None:
    machine.memo[slot] = machine.stack[-1]


def _long(machine: _Machine) -> int:
    return machine.number(machine.number(1), signed=True)


_ACTIONS: dict[bytes, Callable[[_Machine], None]] = {
    b"\x95": lambda machine: machine.take(8) and None,  # FRAME: how much follows, of no concern
    b"N": _push(lambda machine: None),
    b"\x88": _push(lambda machine: True),
    b"\x89": _push(lambda machine: False),
    b"K": _push(lambda machine: machine.number(1)),
    b"M": _push(lambda machine: machine.number(2)),
    b"J": _push(lambda machine: machine.number(4, signed=True)),
    b"\x8a": _push(_long),
    b"G": _push(lambda machine: struct.unpack(">d", machine.take(8))[0]),
    b"\x8c": _push(lambda machine: machine.string(1, text=True)),
    b"X": _push(lambda machine: machine.string(4, text=True)),
    b"\x8d": _push(lambda machine: machine.string(8, text=True)),
    b"C": _push(lambda machine: machine.string(1, text=False)),
    b"B": _push(lambda machine: machine.string(4, text=False)),
    b"\x8e": _push(lambda machine: machine.string(8, text=False)),
    b"\x96": _push(lambda machine: machine.string(8, text=False)),  # a bytearray
    b"]": _push(lambda machine: []),
    b"}": _push(lambda machine: {}),
    b")": _push(lambda machine: ()),
    b"\x85": _push(lambda machine: tuple(machine.pop(1))),
    b"\x86": _push(lambda machine: tuple(machine.pop(2))),
    b"\x87": _push(lambda machine: tuple(machine.pop(3))),
    b"(": _mark,
    b"t": _push(lambda machine: tuple(machine.pop_mark())),
    b"a": lambda machine: _extend(machine, machine.pop(1)),
    b"e": lambda machine: _extend(machine, machine.pop_mark()),
    b"s": lambda machine: _update(machine, machine.pop(2)),
    b"u": lambda machine: _update(machine, machine.pop_mark()),
    b"q": lambda machine: _put(machine, machine.number(1)),
    b"r": lambda machine: _put(machine, machine.number(4)),
    b"\x94": lambda machine: _put(machine, len(machine.memo)),
    b"h": _push(lambda machine: machine.memo[machine.number(1)]),
    b"j": _push(lambda machine: machine.memo[machine.number(4)]),
    b"c": _push(lambda machine: _global(machine.line(), machine.line())),
    b"\x93": _push(lambda machine: _global(*machine.pop(2))),
    b"R": _push(lambda machine: _call(*machine.pop(2))),
    b"b": _build,
}

# What an instruction adds to memory at most, apart from the strings in the file: an object and its
# place on the stack, or in the memo; 40 for all others.
_BYTES = {
    **dict.fromkeys((b"]", b"}", b"q", b"r", b"\x94"), 110),
    **dict.fromkeys((b"t", b"\x85", b"\x86", b"\x87", b"R"), 90),
}
