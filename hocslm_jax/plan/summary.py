"""The numbers of a plan as a page of text."""

from hocslm_jax.plan.estimate import bytes_needed

GIB = 2**30


def lines(row: dict) -> list[str]:
    """The page, line by line."""
    mesh, batch = row["mesh"], row["batch_size"]
    axes = " ".join(f"{axis}={size}" for axis, size in mesh.items())
    stage = f"stage {row['stage']} of {row['stages']}"
    return [
        f"{row['config']}, {stage}: {'+'.join(row['trains'])} by {'+'.join(row['by'])}",
        f"{row['topology']}: {row['devices']} devices, mesh {axes}; {batch:,} clips a step, "
        f"{batch / mesh['data']:g} a replica",
        "",
        "Of one device",
        *_memory_lines(row),
        *_work_lines(row),
        *_time_lines(row),
        *(f"warning: {text}" for text in row["warnings"]),
    ]


def _memory_lines(row: dict) -> list[str]:
    sizes = row["bytes"]
    parts = ", ".join(f"{name} {_gib(sizes[name])}" for name in ("state", "frozen", "batch"))
    if "does_not_fit" in row:
        return [f"  arguments       {parts} GiB", f"  does not fit: {row['does_not_fit']}"]
    if "peak" not in sizes:
        return [f"  arguments       {parts} GiB"]
    whole, hbm = bytes_needed(row), sizes["hbm"]
    verdict = "fits" if row["fits"] else "does not fit"
    room = f" of {_gib(hbm)} GiB ({whole / hbm:.0%}): {verdict}" if hbm else " GiB"
    return [
        f"  arguments       {_gib(sizes['arguments'])} GiB ({parts})",
        f"  temporaries     {_gib(sizes['temporaries'])} GiB",
        f"  generated code  {_gib(sizes['generated_code'])} GiB",
        f"  in all          {_gib(whole)}{room}",
    ]


def _work_lines(row: dict) -> list[str]:
    counts = row["flops"]
    even = f"{_tera(counts['ideal'])} TFLOP by an even split of the step"
    if "matrix" not in counts:
        return [f"  products        {even}"]
    found = [
        f"  products        {_tera(counts['matrix'])} TFLOP ({even})",
        f"  main memory     {row['hbm_traffic'] / 1e9:.2f} GB read and written",
    ]
    calls = "".join(f", {count:,} calls of {name}" for name, count in row["library_calls"].items())
    found.append(f"  launches        {row['kernels']:,} kernels{calls}")
    for kind, one in row["collectives"].items():
        found.append(f"  {kind:<15} {one['bytes'] / 1e6:,.1f} MB in {one['count']:,}")
    return found


def _time_lines(row: dict) -> list[str]:
    if "bound" not in row:
        return []
    seconds, rates = row["seconds"], row["examples_per_s"]
    names = ("arithmetic", "memory", "network")
    parts = ", ".join(f"{name} {1e3 * seconds[name]:.2f} ms" for name in names)
    found = [
        f"Time of a step: {parts}",
        f"  at best {1e3 * seconds['step']:.2f} ms ({row['bound']}): "
        f"{rates['at_best']:,.0f} clips/s",
    ]
    if "compiler" in seconds:
        found.append(
            f"  the compiler's estimates of its kernels: {1e3 * seconds['compiler']:.2f} ms, "
            f"{rates['compiler']:,.0f} clips/s"
        )
    return found


def _gib(size: float) -> str:
    return f"{size / GIB:.2f}"


def _tera(count: float) -> str:
    return f"{count / 1e12:.3f}"
