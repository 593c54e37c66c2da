"""Computes the costs of one step on one device from its compiled program.

In: the text of the program (HLO). Out: `Costs`: FLOPs, memory traffic, communication, and the
compiler's own estimate of cycles. XLA's `cost_analysis` counts the body of a loop once; here it
counts as often as it runs.
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
_SLICES = ("dynamic-slice", "slice", "gather")
_FUSIONS = ("fusion", "fusion-start")  # the second, from jax 0.12 on, runs in parallel with others


@dataclasses.dataclass
class Collective:
    """All collectives of one kind: number, bytes, and bytes that a device sends in a ring."""

    count: int = 0
    bytes: float = 0.0
    sent: float = 0.0
    in_loops: float = 0.0  # of `bytes`


@dataclasses.dataclass
class Costs:
    """Costs of one step on one device.

    Attributes:
      matrix_flops: FLOPs of matrix products and convolutions, a multiply and an add each.
      hbm_bytes: read and written by each instruction, except what stays in a TPU's VMEM.
      cycles: the sum of the compiler's estimates, if there are any.
      collectives: by kind, such as "all-reduce".
      kernels: launches on a GPU, or separate instructions elsewhere, without library calls.
      library_calls: by library, such as "cublas" and "cudnn".
      unknown_loops: loops that are counted once because their length is not known.
    """

    matrix_flops: float = 0.0
    hbm_bytes: float = 0.0
    cycles: float = 0.0
    collectives: dict[str, Collective] = dataclasses.field(default_factory=dict)
    kernels: int = 0
    library_calls: dict[str, int] = dataclasses.field(default_factory=dict)
    unknown_loops: int = 0

    @property
    def sent(self) -> float:
        return sum(collective.sent for collective in self.collectives.values())


def read_costs(text: str, devices: int) -> Costs:
    """The costs of a program, given its text `compiled.as_text()`."""
    costs, program = Costs(), hlo.parse(text)
    _Walk(program, devices, costs).computation(program.entry, 1, set(), fused=False)
    return costs


@dataclasses.dataclass(frozen=True)
class _Walk:
    """Adds up the costs of a program, from its entry into all computations that it calls."""

    program: hlo.Program
    devices: int
    costs: Costs

    def computation(self, name: str, times: int, seen: set[str], fused: bool) -> None:
        """`seen`: collectives counted so far; an asynchronous one is several instructions."""
        scope = self.program.computations[name]
        for instruction in scope.values():
            self.instruction(name, scope, instruction, times, seen, fused)

    def instruction(self, name, scope, instruction, times, seen, fused) -> None:
        costs, opcode = self.costs, instruction.opcode
        costs.matrix_flops += times * hlo.product_flops(scope, instruction)
        if opcode.removesuffix("-start") in KINDS:
            self.collective(name, scope, instruction, times, seen)
        if not fused:
            costs.hbm_bytes += times * self.traffic(scope, instruction)
            self.launch(instruction, times)
            if estimate := re.search(r'"estimated_cycles":"(\d+)"', instruction.attributes):
                costs.cycles += times * int(estimate[1])
        if opcode == "while":
            count = hlo.passes(self.program, scope, instruction)
            costs.unknown_loops += count is None
            for called in instruction.calls("body"):
                self.computation(called, times * (1 if count is None else count), set(), fused)
        elif opcode in _FUSIONS:
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
            made -= given  # the result of a start contains the operands
        if kind == "all-reduce" and "reduce-scatter" in name:  # notation of TPU programs
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
            ends = instruction.arrays[:2]  # source and destination, of equal size for a slice
            return min(end.nbytes for end in ends) * sum(not end.fast for end in ends)
        if opcode in _SLICES:
            return written + _nbytes(scope, instruction.operands[0], instruction.nbytes)
        if opcode in ("dynamic-update-slice", "scatter"):
            return 2 * _nbytes(scope, instruction.operands[1 if opcode[0] == "d" else -1])
        if opcode in _FUSIONS:
            return self.fusion_traffic(scope, instruction)
        return written + sum(_nbytes(scope, operand) for operand in instruction.operands)

    def fusion_traffic(self, scope, instruction) -> float:
        """Traffic of a fusion; if it slices or updates an argument, only the slice counts."""
        called = instruction.calls("calls")[0]
        total, kept = 0.0, 0.0
        if instruction.opcode == "fusion-start":  # its result contains the operands
            kept = sum(_nbytes(scope, operand) for operand in instruction.operands)
        for number, operand in enumerate(instruction.operands):
            whole = _nbytes(scope, operand)
            read, updates = self.touched(called, number, whole)
            total += read
            kept += whole - read if updates else 0.0
        return total + max(_slow(instruction) - kept, 0.0)

    def rearranges(self, user) -> bool:
        """Whether it, or all that it calls, only changes a layout."""
        if user.opcode == "fusion":
            inside = self.program.computations[user.calls("calls")[0]].values()
            return all(one.opcode == "parameter" or self.rearranges(one) for one in inside)
        return user.opcode in ("bitcast", "copy")

    def touched(self, name: str, number: int, whole: float) -> tuple[float, bool]:
        """(bytes that a fused computation reads of an argument, whether it updates it in place)."""
        inside = self.program.computations[name]
        aliases = {hlo.argument(inside, number)}
        read, updates = 0.0, False
        for user in inside.values():
            given = [place for place, o in enumerate(user.operands) if o in aliases]
            if not given:
                continue
            if self.rearranges(user):  # inside a fusion nothing is copied: what is used is read
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


def _branches(instruction) -> list[str]:
    branches = re.search(r"branch_computations=\{([^}]*)\}", instruction.attributes)
    names = re.findall(r"%([\w.\-]+)", branches[1]) if branches else []
    return names or instruction.calls("calls", "to_apply", "true_computation", "false_computation")


def _slow(instruction) -> float:
    """Bytes of a result in main memory."""
    return sum(array.nbytes for array in instruction.arrays if not array.fast)


def _nbytes(scope, name: str, most: float = float("inf")) -> float:
    """Bytes of an operand in main memory, at most `most`."""
    return min(_slow(scope[name]), most) if name in scope else 0.0


def _ring(kind: str, group: int) -> float:
    """The share of a collective's bytes that each device sends around a ring."""
    share = (group - 1) / group
    return {"all-reduce": 2 * share, "collective-permute": 1.0}.get(kind, share)
