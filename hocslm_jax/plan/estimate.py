"""The numbers of a plan: memory, FLOPs, traffic and least time of a config's train step.

In: a stage's config, devices (which this machine may lack), and their Chip if it is known. Out: a
dict for JSON with numbers of one device, the limiting resource, and warnings.
"""

import copy
from collections.abc import Sequence

import jax

from hocslm_jax.plan import planned_step
from hocslm_jax.plan.chips import Chip
from hocslm_jax.plan.costs import read_costs

REPEATED = 1.05  # products relative to an even split; more means that devices repeat work
FULL = 0.9  # share of the memory: the next batch and the allocator need room too


def estimate(
    config, devices: Sequence[jax.Device], chip: Chip | None = None, compiling: bool = True
) -> dict:
    """Builds, traces and, if requested, compiles the step.

    Raises:
        UserError: as `planned_step.build_step`.
    """
    made = planned_step.build_step(config, devices)
    alone = copy.deepcopy(config)
    alone.mesh.update(data=1, model=1, stream=1)
    whole = planned_step.build_step(alone, devices[:1], made.lm, attention="xla")
    total = planned_step.traced_flops(whole)
    row = {
        "devices": len(devices),
        "mesh": {name: int(size) for name, size in made.mesh.shape.items()},
        "batch_size": config.train.batch_size,
        "bytes": {
            "state": planned_step.nbytes(made.state),
            "frozen": planned_step.nbytes(made.frozen),
            "batch": planned_step.nbytes(made.batch),
            "hbm": chip and chip.hbm,
        },
        "flops": {"step": total, "ideal": total / len(devices)},
    }
    if compiling:
        row |= compiled_numbers(row, made, chip)
    row["fits"] = fits(row)
    row["warnings"] = warnings(row, made, chip)
    return row


def compiled_numbers(row: dict, made: planned_step.Step, chip: Chip | None) -> dict:
    """Numbers of the compiled program, or the message that it does not fit."""
    compiled, seconds = planned_step.compile_lowered(made.lower())
    if isinstance(compiled, str):
        return {"does_not_fit": compiled, "seconds": {"compile": seconds}}
    costs = read_costs(compiled.as_text(), row["devices"])
    numbers = {
        "bytes": row["bytes"] | planned_step.memory(compiled),
        "flops": row["flops"] | {"matrix": costs.matrix_flops},
        "hbm_traffic": costs.hbm_bytes,
        "collectives": {kind: vars(one) for kind, one in sorted(costs.collectives.items())},
        "kernels": costs.kernels,
        "library_calls": costs.library_calls,
        "compiler_cycles": costs.cycles,
        "unknown_loops": costs.unknown_loops,
        "seconds": {"compile": seconds},
    }
    return numbers | (roofline(numbers, row["batch_size"], costs.sent, chip) if chip else {})


def roofline(numbers: dict, batch_size: int, sent: float, chip: Chip) -> dict:
    """The shortest time of a step: three resources work in parallel, each at its peak rate.

    If the clock is known, it also gives the sum of the compiler's estimates of all kernels. That
    includes small matrices and slow layouts but no network, and tends to be too long.
    """
    parts = {
        "arithmetic": numbers["flops"]["matrix"] / chip.flops,
        "memory": numbers["hbm_traffic"] / chip.hbm_rate,
        "network": sent / chip.link_rate,
    }
    bound = max(parts, key=parts.get)
    seconds = numbers["seconds"] | parts | {"step": parts[bound]}
    rates = {"at_best": batch_size / parts[bound]}
    if chip.clock and numbers["compiler_cycles"]:
        seconds["compiler"] = numbers["compiler_cycles"] / chip.clock
        rates["compiler"] = batch_size / max(seconds["compiler"], parts[bound])
    return {"seconds": seconds, "bound": bound, "examples_per_s": rates}


def bytes_needed(row: dict) -> int | None:
    """Bytes of memory that the compiled step takes; None if it is not compiled."""
    sizes = row["bytes"]
    return sizes["peak"] + sizes["generated_code"] if "peak" in sizes else None


def fits(row: dict) -> bool | None:
    """Whether it fits; None if the program is not compiled or the memory is unknown."""
    if "does_not_fit" in row:
        return False
    size, hbm = bytes_needed(row), row["bytes"]["hbm"]
    return size <= hbm if size and hbm else None


def warnings(row: dict, made: planned_step.Step, chip: Chip | None) -> list[str]:
    """Advice on what to change before paying for the devices."""
    found = [*_memory_warnings(row), *_work_warnings(row), *_weight_warnings(row, made)]
    data = row["mesh"]["data"]
    if made.lm and chip:
        positions = row["batch_size"] // data * (made.config.lm.max_tokens + 1)
        enough = round(chip.flops / chip.hbm_rate)
        if positions < enough:
            found.append(
                f"the batch is small for the mesh: {row['batch_size'] // data} clips a replica are "
                f"{positions} rows in the language model's products; below about {enough} reading "
                "the weights takes longer: raise train.batch_size or mesh.model"
            )
    if row.get("unknown_loops"):
        found.append(f"{row['unknown_loops']} loops of unknown length are counted once")
    return found


def _memory_warnings(row: dict) -> list[str]:
    advice = "use more chips, a smaller batch, or split the language model (mesh.model, lm.fsdp)"
    if row["fits"] is False:
        size = row.get("does_not_fit") or f"{bytes_needed(row) / 2**30:.1f} GiB are needed"
        return [f"it does not fit: {size}; {advice}"]
    if row["fits"] and bytes_needed(row) > FULL * row["bytes"]["hbm"]:
        return [f"it fills over {FULL:.0%} of the memory: {advice}"]
    return []


def _work_warnings(row: dict) -> list[str]:
    counts = row["flops"]
    excess = counts.get("matrix", 0) / counts["ideal"]
    if excess < REPEATED:
        return []
    said = f"devices repeat each other's work: {excess:.2f} times the products of an even split"
    ways = row["mesh"]["data"] * row["mesh"]["model"]
    if row["batch_size"] % ways:
        said += f"; the encoder's clips are split {ways} ways if train.batch_size is a multiple"
    return [said]


def _weight_warnings(row: dict, made: planned_step.Step) -> list[str]:
    """The cost of splitting the frozen weights over 'data': they are sent twice a step."""
    whole = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(made.frozen))
    loops = {kind: one["in_loops"] for kind, one in row.get("collectives", {}).items()}
    gathered = loops.get("all-gather", 0.0) + loops.get("collective-permute", 0.0)
    if not whole or not made.config.lm.fsdp or gathered <= whole / row["mesh"]["model"] / 2:
        return []
    return [
        f"the weights are all-gathered in every layer: {gathered / 1e9:.1f} GB a device and step; "
        "if they fit, lm.fsdp=false with a larger mesh.model avoids that"
    ]
