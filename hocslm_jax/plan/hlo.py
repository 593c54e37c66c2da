"""Reads the text of a compiled XLA program.

In: `compiled.as_text()`. Out: a `Program` of computations, each a dict of instructions in order
with shapes, operands and attributes; and functions of single instructions: bytes, FLOPs of a
product, iterations of a loop.
"""

import dataclasses
import functools
import itertools
import math
import re

_BYTES = {"pred": 1, "s4": 0.5, "u4": 0.5, "bf16": 2, "c64": 8, "c128": 16, "token": 0}
_ARRAY = re.compile(r"(\w+)\[([\d,]*)\](?:\{([^}]*)\})?")
_INSTRUCTION = re.compile(r"\s*(ROOT )?%?([\w.\-]+) = ")
_COMPUTATION = re.compile(r"(ENTRY )?%?([\w.\-]+) \(.*\{\s*$")


@dataclasses.dataclass(frozen=True)
class Array:
    """One array of an instruction's result; `fast` means that it is not in main memory."""

    dtype: str
    dims: tuple[int, ...]
    fast: bool

    @property
    def size(self) -> int:
        return math.prod(self.dims)

    @property
    def nbytes(self) -> float:
        width = _BYTES.get(self.dtype) or int(re.sub(r"\D.*", "", self.dtype[1:]) or 8) / 8
        return self.size * (0 if self.dtype == "token" else width)


@dataclasses.dataclass(frozen=True)
class Instruction:
    name: str
    opcode: str
    result: str  # its type, as text
    operands: tuple[str, ...]
    attributes: str
    root: bool

    @functools.cached_property
    def arrays(self) -> tuple[Array, ...]:
        """The arrays of the result, which may be a tuple."""
        return tuple(
            Array(dtype, tuple(int(n) for n in dims.split(",") if n), _fast(layout))
            for dtype, dims, layout in _ARRAY.findall(self.result)
        )

    @property
    def nbytes(self) -> float:
        return sum(array.nbytes for array in self.arrays)

    def attribute(self, name: str) -> str:
        """The value of `name=…`, "" if there is none."""
        match = re.search(rf"[, ]{name}=(\{{[^}}]*\}}|[^\s,]+)", self.attributes)
        return match[1] if match else ""

    def calls(self, *names: str) -> list[str]:
        """The computations named in attributes such as `calls` or `body`."""
        return [
            called for n in names for called in re.findall(rf"\b{n}=%([\w.\-]+)", self.attributes)
        ]


Computation = dict[str, Instruction]


@dataclasses.dataclass(frozen=True)
class Program:
    computations: dict[str, Computation]
    entry: str


def parse(text: str) -> Program:
    """The computations of a program's text."""
    computations, entry, current = {}, "", None
    for line in text.splitlines():
        if header := _COMPUTATION.match(line):
            current = computations.setdefault(header[2], {})
            entry = header[2] if header[1] else entry
        elif line.startswith("}"):
            current = None
        elif current is not None and (start := _INSTRUCTION.match(line)):
            instruction = _instruction(start, line[start.end() :])
            current[instruction.name] = instruction
    return Program(computations, entry)


def _instruction(start: re.Match, rest: str) -> Instruction:
    end = _closing(rest, 0) if rest.startswith("(") else rest.index(" ")
    result, rest = rest[:end], rest[end:].lstrip()
    opcode, _, _ = rest.partition("(")
    end = _closing(rest, len(opcode))
    inside = rest[len(opcode) + 1 : end - 1]
    operands = tuple(re.findall(r"%([\w.\-]+)", inside)) or tuple(filter(None, [inside]))
    return Instruction(start[2], opcode, result, operands, rest[end:], bool(start[1]))


def _closing(text: str, start: int) -> int:
    """The position after the bracket that closes the one at `start`."""
    depth = 0
    for match in re.compile(r"[()]").finditer(text, start):
        depth += 1 if match[0] == "(" else -1
        if not depth:
            return match.end()
    return len(text)


def _fast(layout: str) -> bool:
    """Whether a layout places an array outside main memory: `S(1)` is a TPU's VMEM."""
    return bool(re.search(r"S\([1-9]\)", layout))


def passes(program: Program, caller: Computation, loop: Instruction) -> int | None:
    """How often a `while` runs its body; None if unknown.

    A loop that JAX makes from a scan has the condition `index < n`, where `index` counts from 0;
    `n` may be part of the loop's state.
    """
    if known := re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.attributes):
        return int(known[1])
    condition = program.computations[loop.calls("condition")[0]]
    state = caller.get(loop.operands[0])
    for instruction in condition.values():
        if instruction.opcode != "compare" or "direction=LT" not in instruction.attributes:
            continue
        limit = condition.get(instruction.operands[1])
        if limit and limit.opcode == "get-tuple-element" and state and state.opcode == "tuple":
            limit = caller.get(state.operands[int(limit.attribute("index"))])
        while limit and limit.opcode in ("copy", "bitcast"):
            limit = caller.get(limit.operands[0])
        if limit and limit.opcode == "constant":
            return int(limit.operands[0])
    return None


def library(instruction: Instruction) -> str:
    """The library that an instruction calls, such as "cublas" or "cudnn"; "" for none."""
    pattern = r'custom_call_target="__(cublas|cudnn|cusolver|cufft)'
    called = re.search(pattern, instruction.attributes)
    return called[1] if called and instruction.opcode == "custom-call" else ""


def product_flops(scope: Computation, instruction: Instruction) -> float:
    """FLOPs of a matrix product or convolution (a multiply and an add each); 0 for others."""
    gemm = instruction.opcode == "custom-call" and "cublas" in instruction.attributes
    if not gemm and instruction.opcode not in ("dot", "convolution"):
        return 0.0
    sides = [scope[name].arrays[0].dims for name in instruction.operands[:2]]
    if instruction.opcode == "convolution":
        return _convolution_flops(instruction, *sides)
    pattern = r'lhs_contracting_dim(?:s=\{|ensions":\[)([^}\]]*)'
    contracted = re.search(pattern, instruction.attributes)
    depth = math.prod(sides[0][dim] for dim in _numbers(contracted[1]))
    return 2.0 * instruction.arrays[0].size * depth


def _convolution_flops(instruction: Instruction, lhs: tuple, rhs: tuple) -> float:
    """Excludes products with padding: TPUs express batched matrix products as convolutions."""
    left, right, out = re.split(r"_|->", instruction.attribute("dim_labels"))
    size = instruction.arrays[0].dims
    window = _window(instruction.attributes)
    spatial = [label for label in out if label.isdigit()]
    total = 2.0 * rhs[right.index("i")] * size[out.index("b")] * size[out.index("f")]
    total /= int(instruction.attribute("batch_group_count") or 1)
    for label in spatial:
        dim = {key: values[int(label)] for key, values in window.items()}
        sizes = (lhs[left.index(label)], rhs[right.index(label)], size[out.index(label)])
        total *= _valid(*sizes, **dim)
    return total


def _window(attributes: str) -> dict[str, list]:
    """Stride, padding below and dilations of each spatial dimension."""
    match = re.search(r"window=\{([^}]*)\}", attributes)
    given = dict(item.split("=") for item in match[1].split()) if match else {}
    count = len(given.get("size", "").split("x"))

    def each(key: str, default: str) -> list[str]:
        return given[key].split("x") if key in given else [default] * count

    return {
        "stride": [int(n) for n in each("stride", "1")],
        "low": [int(pad.partition("_")[0]) for pad in each("pad", "0_0")],
        "spread": [int(n) for n in each("lhs_dilate", "1")],
        "reach": [int(n) for n in each("rhs_dilate", "1")],
    }


@functools.cache
def _valid(lhs: int, rhs: int, out: int, stride: int, low: int, spread: int, reach: int) -> int:
    """Number of pairs of output position and window tap that read an element of the input."""
    return sum(
        1
        for position, tap in itertools.product(range(out), range(rhs))
        if 0 <= (at := position * stride + tap * reach - low) <= (lhs - 1) * spread
        and at % spread == 0
    )


def group_size(instruction: Instruction, devices: int) -> int:
    """Number of devices in one group of a collective."""
    text = re.search(r"replica_groups=(\[\d+,(\d+)\]|\{\{([\d,]*)\})", instruction.attributes)
    if not text:
        return devices
    return int(text[2]) if text[2] else len(_numbers(text[3]))


def argument(computation: Computation, number: int) -> str:
    """The name of a computation's parameter."""
    parameters = (i for i in computation.values() if i.opcode == "parameter")
    return next(p.name for p in parameters if p.operands[0] == str(number))


def _numbers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", text)]
