"""Fuzzes every parser of external files with damaged and hostile input.

    python -m benchmarks.fuzz [--seconds=60] [--seed=0] [--targets npy pickle ...] [--atheris NAME]

Each target is a parser with the exceptions that it may raise and a few valid files. Random
bytes of the valid files are changed, and the result is parsed. An input that raises another
exception, takes over two seconds or over 1 GiB of memory is saved, and the run ends with status 1.
With --atheris (`pip install atheris`), that coverage-guided fuzzer generates the input of one
target.
"""

import argparse
import json
import random
import resource
import sys
import tempfile
import time
import types
import warnings
from pathlib import Path

from benchmarks.fuzz_targets import Target, targets

SLOWEST, LARGEST = 2.0, 1 << 30  # seconds of one input; bytes of the process above its start
WORDS = [b"", b"0", b"-1", b"1e999", b"NaN", b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"{", b"[" * 2000]
WORDS += [b"null", b'"', b"\n", b"\\", b"../", b"9" * 400, b"\x1b[2J", b"}" * 2000, b"(" * 2000]


def run(target: Target, folder: Path, seed: int, executions: int, seconds: float = 1e9) -> int:
    """Parses mutated seeds until either limit is reached; returns their number.

    Raises:
      AssertionError: the parser failed; the input is `folder`/broken + suffix.
    """
    rng, stop = random.Random(seed), time.monotonic() + seconds
    done = 0
    while done < executions and time.monotonic() < stop:
        data = rng.choice(target.seeds)
        for _ in range(rng.randrange(4)):
            data = _changed(rng, data, target.seeds)
        check(target, folder, data)
        done += 1
    return done


def check(target: Target, folder: Path, data: bytes) -> None:
    """Parses one input. Raises AssertionError as `run`."""
    path = folder / f"input{target.suffix}"
    path.write_bytes(data)
    before, start, broken = _memory(), time.process_time(), ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)
            target.act(path)
    except target.raises:
        pass
    except Exception as error:
        broken = f"raised {type(error).__name__}: {error}"
    if (seconds := time.process_time() - start) > SLOWEST:
        broken = f"took {seconds:.1f} s"
    if (memory := _memory() - before) > LARGEST:
        broken = f"took {memory >> 20} MiB"
    if broken:
        kept = path.replace(folder / f"broken{target.suffix}")
        raise AssertionError(f"{kept}: {broken}"[:500])


def _memory() -> int:
    """Peak memory of this process, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def _changed(rng: random.Random, data: bytes, seeds: tuple[bytes, ...]) -> bytes:
    start = rng.randrange(len(data) + 1)
    stop = min(len(data), start + rng.choice((0, 1, 1, 2, 4, 8, 40, 1000)))
    other = rng.choice(seeds)
    place = rng.randrange(len(other) + 1)
    new = rng.choice(
        (
            rng.choice(WORDS),
            rng.randbytes(rng.choice((1, 1, 2, 4, 8))),
            other[place : place + rng.choice((1, 4, 16, 200))],
            bytes(byte ^ 1 << rng.randrange(8) for byte in data[start:stop]),
            data[start:stop] * rng.choice((2, 3, 50)),
        )
    )
    return data[:start] if rng.random() < 0.05 else data[:start] + new + data[stop:]


def _guided(target: Target, folder: Path, seconds: float) -> None:
    """Lets atheris generate the input; it ends the process."""
    import atheris

    for name, module in list(sys.modules.items()):
        if name.startswith("hocslm_jax.") or name in ("csv", "json.decoder", "tarfile", "zipfile"):
            classes = [each for each in vars(module).values() if isinstance(each, type)]
            for part in (module, *(each for each in classes if each.__module__ == name)):
                for function in list(vars(part).values()):
                    if isinstance(function, types.FunctionType) and function.__module__ == name:
                        atheris.instrument_func(function)
    corpus = folder / "corpus"
    corpus.mkdir(exist_ok=True)
    for number, seed in enumerate(target.seeds):
        (corpus / str(number)).write_bytes(seed)
    options = [f"-max_total_time={seconds:.0f}", "-max_len=20000", "-print_final_stats=1"]
    atheris.Setup([sys.argv[0], str(corpus), *options], lambda data: check(target, folder, data))
    atheris.Fuzz()


def main() -> int:
    known = targets()
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="total for all targets")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--targets", nargs="+", choices=known, default=list(known))
    parser.add_argument(
        "--atheris", choices=known, help="fuzz only this target, guided by coverage"
    )
    parser.add_argument("--folder", type=Path, default=Path(tempfile.mkdtemp()), help="for inputs")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    if args.atheris:
        _guided(known[args.atheris], args.folder, args.seconds)
    counts, broken = {}, 0
    for name in args.targets:
        folder = args.folder / name.replace(" ", "_")
        folder.mkdir(exist_ok=True)
        try:
            share = args.seconds / len(args.targets)
            counts[name] = run(known[name], folder, args.seed, sys.maxsize, share)
        except AssertionError as error:
            print(f"{name}: {error}", file=sys.stderr)
            broken += 1
    print(json.dumps({"seed": args.seed, "executions": sum(counts.values()), "of": counts}))
    return int(broken > 0)


if __name__ == "__main__":
    sys.exit(main())
