"""What one step costs one device, read from its compiled program.

In: the text of the program. Out: `Costs`: FLOPs, bytes to and from main memory, bytes of each kind
of collective, the compiler's own estimate of cycles. XLA's `cost_analysis` counts the body of a
loop once; here it counts as often as it runs.
"""

import dataclasses
import re

from hocslm_jax.plan import hlo

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
_SILENT = {  # no bytes of their own
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "call", "iota"),
    *("conditional", "after-all", "partition-id", "replica-id", "opt-barrier", "add-dependency"),
    *("async-start", "async-update", "async-done", "copy-done"),
}
_ELEMENTWISE = {
    *("add", "subtract", "multiply", "divide", "maximum", "minimum", "negate", "abs", "compare"),
    *("select", "exponential", "log", "logistic", "tanh", "rsqrt", "sqrt", "power", "cosine"),
    "sine",
}
_SLICES = ("dynamic-slice", "slice", "gather")


@dataclasses.dataclass
class Collective:
    """All of one kind: how many run, their bytes, and the bytes that a device sends in a ring."""

    count: int = 0
    bytes: float = 0.0
    sent: float = 0.0
    in_loops: float = 0.0  # of `bytes`


@dataclasses.dataclass
class Costs:
    """Of one step on one device.

    Attributes:
      matrix_flops: of matrix products and convolutions, a multiply and an add each.
      other_flops: of elementwise operations and reductions.
      hbm_bytes: read and written by each instruction; what stays in a TPU's VMEM is left out.
      cycles: the sum of the compiler's estimates, where it makes any.
      collectives: by kind.
      kernels: launches of a GPU, or what runs on its own elsewhere; library calls are not in it.
      library_calls: by library, such as "cublas" and "cudnn".
      unknown_loops: loops that are counted once because their length is not known.
    """

    matrix_flops: float = 0.0
    other_flops: float = 0.0
    hbm_bytes: float = 0.0
    cycles: float = 0.0
    collectives: dict[str, Collective] = dataclasses.field(default_factory=dict)
    kernels: int = 0
    library_calls: dict[str, int] = dataclasses.field(default_factory=dict)
    unknown_loops: int = 0

    @property
    def sent(self) -> float:
        return sum(collective.sent for collective in self.collectives.values())


def read_costs(text: str, devices: int, unroll: bool = True) -> Costs:
    """The costs of a program's text; `unroll=False` counts the body of a loop once, as XLA does."""
    costs, program = Costs(), hlo.parse(text)
    _Walk(program, devices, unroll, costs).computation(program.entry, 1, set(), fused=False)
    return costs


@dataclasses.dataclass(frozen=True)
class _Walk:
    """Adds up a program, from the entry down into everything that it calls."""

    program: hlo.Program
    devices: int
    unroll: bool
    costs: Costs

    def computation(self, name: str, times: int, seen: set[str], fused: bool) -> None:
        """`seen` are the collectives of this pass: an asynchronous one is there in many pieces."""
        scope = self.program.computations[name]
        for instruction in scope.values():
            self.instruction(name, scope, instruction, times, seen, fused)

    def instruction(self, name, scope, instruction, times, seen, fused) -> None:
        costs, opcode = self.costs, instruction.opcode
        costs.matrix_flops += times * hlo.product_flops(scope, instruction)
        costs.other_flops += times * _other_flops(scope, instruction)
        if opcode.removesuffix("-start") in KINDS:
            self.collective(name, scope, instruction, times, seen)
        if not fused:
            costs.hbm_bytes += times * self.traffic(scope, instruction)
            self.launch(instruction, times)
            if estimate := re.search(r'"estimated_cycles":"(\d+)"', instruction.attributes):
                costs.cycles += times * int(estimate[1])
        if opcode == "while":
            count = hlo.passes(self.program, scope, instruction) if self.unroll else 1
            costs.unknown_loops += count is None
            for called in instruction.calls("body"):
                self.computation(called, times * (1 if count is None else count), set(), fused)
        elif opcode == "fusion":
            for called in instruction.calls("calls"):
                self.computation(called, times, seen, fused=True)
        elif opcode in ("call", "async-start", "conditional"):
            for called in _branches(instruction):
                self.computation(called, times, seen, fused)

    def collective(self, name, scope, instruction, times, seen) -> None:
        channel = instruction.attribute("channel_id") or f"{name}/{instruction.name}"
        if channel in seen:
            return
        seen.add(channel)
        kind = instruction.opcode.removesuffix("-start")
        given = sum(scope[operand].nbytes for operand in instruction.operands if operand in scope)
        made = instruction.nbytes
        if instruction.opcode.endswith("-start") and kind != "all-reduce":
            made -= given  # the result of a start holds the operands too
        if kind == "all-reduce" and "reduce-scatter" in name:  # how a TPU writes one
            kind = "reduce-scatter"
        group = hlo.group_size(instruction, self.devices)
        total = self.costs.collectives.setdefault(kind, Collective())
        size = max(given, made)
        total.count += times
        total.bytes += times * size
        total.sent += times * size * _ring(kind, group)
        total.in_loops += times * size * (times > 1)

    def launch(self, instruction, times) -> None:
        opcode, costs = instruction.opcode, self.costs
        library = hlo.library(instruction)
        if library:
            costs.library_calls[library] = costs.library_calls.get(library, 0) + times
        elif opcode not in _SILENT and opcode.removesuffix("-start") not in KINDS:
            costs.kernels += 0 if opcode.endswith(("-done", "-update")) else times

    def traffic(self, scope, instruction) -> float:
        """Bytes that an instruction reads from and writes to main memory."""
        opcode = instruction.opcode
        if opcode in _SILENT or opcode.endswith("-done") or opcode.endswith("-update"):
            return 0.0
        if "AllocateBuffer" in instruction.attributes:
            return 0.0
        written = _slow(instruction)
        if opcode in ("copy-start", "slice-start"):
            ends = instruction.arrays[
                :2
            ]  # source and destination; a slice reads no more than it is
            return min(end.nbytes for end in ends) * sum(not end.fast for end in ends)
        if opcode in _SLICES:
            return written + _nbytes(scope, instruction.operands[0], instruction.nbytes)
        if opcode in ("dynamic-update-slice", "scatter"):
            return 2 * _nbytes(scope, instruction.operands[1 if opcode[0] == "d" else -1])
        if opcode == "fusion":
            return self.fusion_traffic(scope, instruction)
        return written + sum(_nbytes(scope, operand) for operand in instruction.operands)

    def fusion_traffic(self, scope, instruction) -> float:
        """Of a fusion: of an argument that it only slices, or updates in place, the slice."""
        called = instruction.calls("calls")[0]
        total, kept = 0.0, 0.0
        for number, operand in enumerate(instruction.operands):
            whole = _nbytes(scope, operand)
            read, updates = self.touched(called, number, whole)
            total += read
            kept += whole - read if updates else 0.0
        return total + max(_slow(instruction) - kept, 0.0)

    def touched(self, name: str, number: int, whole: float) -> tuple[float, bool]:
        """Bytes of an argument that a fused computation reads; whether it updates it in place."""
        inside = self.program.computations[name]
        aliases = {hlo.argument(inside, number)}
        read, updates = 0.0, False
        for user in inside.values():
            given = [place for place, o in enumerate(user.operands) if o in aliases]
            if not given:
                continue
            if user.opcode == "bitcast":
                aliases.add(user.name)
            elif user.opcode in _SLICES and given == [0]:
                read += user.nbytes
            elif user.opcode == "dynamic-update-slice" and given == [0]:
                read, updates = read + inside[user.operands[1]].nbytes, True
            elif user.opcode == "fusion":
                called = user.calls("calls")[0]
                for place in given:
                    more, deeper = self.touched(called, place, whole)
                    read, updates = read + more, updates or deeper
            else:
                return whole, False
        return min(read, whole), updates


def _other_flops(scope, instruction) -> float:
    if instruction.opcode in _ELEMENTWISE:
        return instruction.arrays[0].size
    if instruction.opcode == "reduce":
        return sum(scope[name].arrays[0].size for name in instruction.operands[:1])
    return 0.0


def _branches(instruction) -> list[str]:
    branches = re.search(r"branch_computations=\{([^}]*)\}", instruction.attributes)
    names = re.findall(r"%([\w.\-]+)", branches[1]) if branches else []
    return names or instruction.calls("calls", "to_apply", "true_computation", "false_computation")


def _slow(instruction) -> float:
    """Bytes of a result that lie in main memory."""
    return sum(array.nbytes for array in instruction.arrays if not array.fast)


def _nbytes(scope, name: str, most: float = float("inf")) -> float:
    """Bytes of an operand in main memory, but no more than are read of it."""
    return min(_slow(scope[name]), most) if name in scope else 0.0


def _ring(kind: str, group: int) -> float:
    """What a device of a group sends, as a share of the collective's bytes, around a ring."""
    share = (group - 1) / group
    return {"all-reduce": 2 * share, "collective-permute": 1.0}.get(kind, share)
