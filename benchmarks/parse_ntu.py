"""How fast `.skeleton` files are parsed, by one process and by several, and in how much memory.

    python -m benchmarks.parse_ntu --source skeletons.tar.xz --json results/parse_ntu.json

In: real files. Out: files per CPU second of our parser and of two that go line by line, on the same
bytes, repetitions interleaved; files per second of a whole read by worker processes; and the peak
memory of a whole `prepare` over sets of so many files, made by linking the real ones under names of
NTU RGB+D 120.
"""

import argparse
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.record import measured_here, write_result
from hocslm_jax.data.prepare.archive import read_members
from hocslm_jax.data.prepare.ntu.reader import recipe
from hocslm_jax.data.prepare.ntu.skeleton import parse_skeleton

SAMPLE = Path(os.environ.get("HOCSLM_SHARED", "../shared")) / "data/ntu_sample/skeletons.tar.xz"
PREPARE = """
import sys, time
from hocslm_jax.__main__ import main
start = time.perf_counter()
if main(["prepare", "ntu120", *sys.argv[1:]]):
    sys.exit(1)
with open("/proc/self/status") as status:
    peak = next(line.split()[1] for line in status if line.startswith("VmHWM"))
print(peak, time.perf_counter() - start)
"""


def line_by_line(data: bytes) -> dict:
    """The format as public preprocessing scripts read it: a small array for every joint, poses
    stacked frame by frame, colour pixels too."""
    lines = iter(data.decode().splitlines())
    bodies, valid = {}, -1
    for _ in range(int(next(lines))):
        num_bodies = int(next(lines))
        valid += num_bodies > 0
        for _ in range(num_bodies):
            key, num_joints = next(lines).split()[0], int(next(lines))
            joints = np.zeros((num_joints, 3), np.float32)
            pixels = np.zeros((num_joints, 2), np.float32)
            for joint in range(num_joints):
                tokens = next(lines).split()
                joints[joint] = np.array(tokens[:3], dtype=np.float32)
                pixels[joint] = np.array(tokens[5:7], dtype=np.float32)
            if key in bodies:
                old = bodies[key]
                stacked = np.vstack((old[0], joints)), np.vstack((old[1], pixels))
                bodies[key] = (*stacked, [*old[2], valid])
            else:
                bodies[key] = joints, pixels, [valid]
    return {key: (joints.reshape(-1, 25, 3), frames) for key, (joints, _, frames) in bodies.items()}


def plain_loop(data: bytes) -> dict:
    """The fastest loop over lines that we know: x, y, z only, to lists, converted once."""
    lines = iter(data.splitlines())
    bodies, valid = {}, -1
    for _ in range(int(next(lines))):
        num_bodies = int(next(lines))
        valid += num_bodies > 0
        for _ in range(num_bodies):
            joints, frames = bodies.setdefault(next(lines).split(None, 1)[0].decode(), ([], []))
            frames.append(valid)
            for line in itertools.islice(lines, int(next(lines))):
                x, y, z, _ = line.split(None, 3)
                joints.append((float(x), float(y), float(z)))
    return {
        key: (np.array(joints, np.float32).reshape(-1, 25, 3), frames)
        for key, (joints, frames) in bodies.items()
    }


def ours(data: bytes) -> dict:
    bodies = parse_skeleton(data).bodies
    return {key: (body.joints, body.frames) for key, body in bodies.items()}


PARSERS: dict[str, Callable[[bytes], dict]] = {
    "ours": ours,
    "line_by_line": line_by_line,
    "plain_loop": plain_loop,
}


def readable(source: Path, limit: int) -> dict[str, bytes]:
    """{name: bytes} of files that all parsers can read, and read alike."""
    files = {}
    for name, data in read_members(source, (".skeleton",)):
        try:
            results = [parse(data) for parse in PARSERS.values()]
        except ValueError:
            continue
        for key, (joints, frames) in results[0].items():
            for other in results[1:]:
                np.testing.assert_array_equal(joints, other[key][0])
                np.testing.assert_array_equal(frames, other[key][1])
        files[Path(name).name] = data
        if len(files) == limit:
            break
    return files


def parse_rates(files: dict[str, bytes], repetitions: int) -> dict:
    """Files per CPU second of each parser, and how many times faster ours is."""
    rates = {name: [] for name in PARSERS}
    for _ in range(repetitions):
        for name, parse in PARSERS.items():
            start = time.process_time()
            for data in files.values():
                parse(data)
            rates[name].append(len(files) / (time.process_time() - start))
    megabytes = sum(map(len, files.values())) / len(files) / 1e6
    result = {name: summary(found) for name, found in rates.items()}
    for name in PARSERS:
        result[name]["megabytes_per_second"] = result[name]["median"] * megabytes
        ratios = [a / b for a, b in zip(rates["ours"], rates[name], strict=True)]
        result[name]["ours_is_faster"] = summary(ratios)
    return result


def worker_rates(folder: Path, num_files: int, workers: list[int], repetitions: int) -> list[dict]:
    """Files per second of wall clock from disk to clips in this process, pools already started."""
    rates = {number: [] for number in workers}
    for _ in range(repetitions):
        for number, found in rates.items():
            made = recipe("ntu120", [folder], print, workers=number)
            clips = (clip for shard in made.shards for clip in shard())
            next(clips)
            start = time.perf_counter()
            count = sum(1 for _ in clips)
            found.append(count / (time.perf_counter() - start))
    one = statistics.median(rates[workers[0]])
    return [
        {"workers": number, "files": num_files, "speedup": statistics.median(found) / one}
        | summary(found)
        for number, found in rates.items()
    ]


def memory(scratch: Path, files: dict[str, bytes], num_files: int) -> dict:
    """Peak memory in MB and seconds of `prepare ntu120` over so many files, in one process."""
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        linked(Path(folder) / "files", files, num_files)
        arguments = ["--source", f"{folder}/files", "--data-dir", folder, "--workers", "1"]
        done = subprocess.run(
            [sys.executable, "-c", PREPARE, *arguments], check=True, capture_output=True, text=True
        )
        size = sum(path.stat().st_size for path in Path(folder).rglob("*.array_record*"))
    peak, seconds = done.stdout.split()[-2:]
    return {
        "files": num_files,
        "peak_megabytes": int(peak) / 1024,
        "seconds": float(seconds),
        "megabytes_written": size / 1e6,
    }


def linked(folder: Path, files: dict[str, bytes], count: int) -> Path:
    """So many files under names of NTU120, in which the given ones repeat as links."""
    folder.mkdir()
    originals = []
    for number, data in enumerate(files.values()):
        originals.append(folder / f"{number}.original")
        originals[-1].write_bytes(data)
    takes = itertools.product(range(1, 33), range(1, 4), range(1, 107), (1, 2), range(61, 121))
    for number, take in zip(range(count), itertools.islice(takes, 0, None, 16), strict=False):
        name = "S{:03}C{:03}P{:03}R{:03}A{:03}.skeleton".format(*take)
        os.link(originals[number % len(originals)], folder / name)
    return folder


def summary(found: list[float]) -> dict:
    """Median, extremes and the repetitions themselves."""
    spread = {"median": statistics.median(found), "min": min(found), "max": max(found)}
    return spread | {"repetitions": found}


def measure(args: argparse.Namespace) -> dict:
    files = readable(args.source, args.files)
    parsers = parse_rates(files, args.repetitions)
    with tempfile.TemporaryDirectory(dir=args.scratch) as scratch:
        folder = linked(Path(scratch) / "files", files, args.worker_files)
        workers = worker_rates(folder, args.worker_files, args.workers, args.repetitions)
    few = dict(list(files.items())[:100])
    return {
        "benchmark": "parse_ntu",
        "files": len(files),
        "megabytes": sum(map(len, files.values())) / 1e6,
        "parsers": {"unit": "files per CPU second of one core"} | parsers,
        "workers": workers,
        "memory": [memory(args.scratch, few, number) for number in args.memory],
        **measured_here("parse_ntu"),
    }


def report(result: dict) -> str:
    lines = [f"{result['files']} files of {result['megabytes']:.0f} MB; files per CPU second:"]
    for name in PARSERS:
        row, times = result["parsers"][name], result["parsers"][name]["ours_is_faster"]
        spread = f"({row['min']:.0f}-{row['max']:.0f}), {row['megabytes_per_second']:.0f} MB/s"
        faster = f"{times['median']:.1f} ({times['min']:.1f}-{times['max']:.1f})"
        lines.append(f"  {name}: {row['median']:.0f} {spread}; ours is {faster} times as fast")
    for row in result["workers"]:
        spread = f"({row['min']:.0f}-{row['max']:.0f})"
        times = f"{row['speedup']:.2f} times one"
        lines.append(f"  {row['workers']} workers: {row['median']:.0f} {spread} files/s, {times}")
    for row in result["memory"]:
        peak = f"{row['peak_megabytes']:.0f} MB at most, {row['seconds']:.0f} s"
        lines.append(f"  prepare of {row['files']:,} files: {peak}")
    return "\n".join(lines)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.parse_ntu", description=__doc__)
    parser.add_argument("--source", type=Path, default=SAMPLE, help="default: %(default)s")
    parser.add_argument("--json", type=Path, help="file for the result")
    parser.add_argument("--files", type=int, default=500, help="at most so many of the source")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--worker-files", type=int, default=2000)
    parser.add_argument("--memory", type=int, nargs="*", default=[500, 5000, 50000])
    parser.add_argument("--scratch", type=Path, help="folder for the sets that are made")
    return parser.parse_args()


def main() -> int:
    args = parse_arguments()
    result = measure(args)
    write_result(args.json, result)
    print(report(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
