"""`results/nw_ucla.md`: what was reached on Northwestern-UCLA, beside what was aimed at.

In: the checked runs below `results/nw_ucla`, their `scores.npz` where kept, and the tables
(`table_*.md`) that `ablate` wrote there. Out: one Markdown document; it copes with whatever part of
the plan is there. Everything is counted here; the sentences that judge follow from the counts.
"""

from collections.abc import Sequence
from pathlib import Path

from hocslm_jax.data.streams import PAPER_STREAMS
from hocslm_jax.evaluate.encoder_table import encoder_pairs, pair_lines, setting
from hocslm_jax.evaluate.ensemble_weights import fit_weights, fuse
from hocslm_jax.evaluate.mistakes import markdown, mistakes
from hocslm_jax.evaluate.nw_ucla_targets import target_lines
from hocslm_jax.evaluate.results import command_lines, group_runs, known, percent, run_name, table
from hocslm_jax.evaluate.score_files import Member, read_members
from hocslm_jax.evaluate.significance import accuracy_interval, compare
from hocslm_jax.evaluate.stream_table import ENSEMBLES, members_by_seed, stream_table

PROTOCOL, HELD_OUT = "xview", "xview_val"
FULL, WIDTH = 65, 64  # CTR-GCN's epochs and channels; a smaller run is no part of the plan
PLANNED = 2 * 2 * 6 * 3  # encoders, strategies T0 and T3, streams, seeds
STREAM_HEADER = (
    *("streams", "seeds", "correct / total", "top-1, last epoch", "best epoch ¹"),
    *("CTR-GCN weights ²", "InfoGCN weights ²", "fitted weights ³"),
)
OTHER_HEADER = (
    *("run", "encoder", "stream", "strategy", "epochs", "seeds", "correct / total"),
    *("top-1, last epoch", "best epoch ¹"),
)
PREAMBLE = """\
# Northwestern-UCLA

Written by `{command}` from the runs' own files; do not edit.

Cross-view: views 1 and 2 train, view 3 tests, {total} clips, so one clip is {clip:.2f} points.
Top-1 is that of the **last** epoch; with several seeds it is the mean ± the sample standard
deviation, and the counts are listed by seed.
"""
PAIR_NOTE = (
    "All settings but the encoder are the same, and ensembles have equal weights. Only: clips that "
    "the other one gets wrong; p of McNemar's exact test on these."
)
LOOK_HEADER = (
    *("run", "protocol", "turns", "crops", "mirrored", "looks", "seeds", "plain"),
    *("with looks", "top-1 with looks"),
)
BEST_NOTE = "¹ Chosen on the test view, the literature's habit, and therefore too high."
NOTES = """\
² Raw logits are summed, as the references do; the column before has equal weights. Counts by seed.
³ Learnt on held-out training clips by runs of protocol `{held_out}`; – where there are none."""
WAITING = """\
## What awaits a GPU

The plan is {planned} runs of at least {full} epochs: HGLNet and CTR-GCN, six streams, three seeds,
without language (T0) and with (T3). {done} of them are here; for the rest two processor cores would
take weeks. One command does them all, goes on where it was cut off, and writes the ensembles, the
tables and the released weights:

```bash
python -m benchmarks.nw_ucla_suite --out runs/suite
```
"""


def render(runs: dict[Path, dict], command: str, folder: Path) -> str:
    """The whole document; `folder` is results/nw_ucla, beside which it lies."""
    looked = _looked({path: result for path, result in runs.items() if "tta" in result}, folder)
    # A run of several streams lies beside those of each.
    runs = {path: result for path, result in runs.items() if "streams" not in result}
    tested = {path: result for path, result in runs.items() if result["protocol"] == PROTOCOL}
    total = max((result["total"] for result in tested.values()), default=464)
    held_out = {path: result for path, result in runs.items() if result["protocol"] == HELD_OUT}
    held_out = list(families(held_out, folder).values())
    sets = [stream_set(name, own, held_out) for name, own in families(tested, folder).items()]
    pairs = encoder_pairs(sets)
    single = {
        run_name(next(iter(group)), folder): list(group.values()) for group in group_runs(tested)
    }
    lines = [PREAMBLE.format(command=command, total=total, clip=100 / total)]
    lines += ["## Targets", "", *target_lines(single, sets, pairs), ""]
    for found in sets:
        lines += [f"## Streams: {found['name']}", "", *_stream_lines(found), ""]
    for pair in pairs:
        lines += [f"## Encoders: {pair['name']}", "", PAIR_NOTE, "", *pair_lines(pair), ""]
    tables = sorted(folder.glob("**/table_*.md"))
    lines += _others(single, sets, [path.parent.relative_to(folder).as_posix() for path in tables])
    lines += [BEST_NOTE, *([NOTES.format(held_out=HELD_OUT)] if sets else []), ""]
    lines += looked
    for path in tables:
        text = path.read_text(encoding="utf-8").strip()
        where = path.parent.relative_to(folder).as_posix()
        lines += [f"#{text}" if text.startswith("# ") else text, "", f"Runs: `{where}`.", ""]
    lines += _wrong(sets, tested, folder)
    lines += [WAITING.format(planned=PLANNED, full=FULL, done=_done(tested))]
    lines += ["## Commands", "", *command_lines(group_runs(runs), folder.parent)]
    return "\n".join(lines) + "\n"


def families(runs: dict[Path, dict], folder: Path) -> dict[str, dict[Path, dict]]:
    """Runs of several streams that differ in nothing else than stream and seed, by name."""
    found: dict[tuple, dict[Path, dict]] = {}
    for path, result in runs.items():
        name = run_name(path, folder)
        head, stream, tail = name.rpartition(result["stream"])
        alike = tuple(result[key] for key in ("encoder", "strategy", "epochs"))
        key = (f"{head}*{tail}" if stream else name, *alike)
        found.setdefault(key, {})[path] = result
    return {
        f"{encoder}, {strategy}, {epochs} epochs (`{name}`)": own
        for (name, encoder, strategy, epochs), own in found.items()
        if len({result["stream"] for result in own.values()}) > 1
    }


def stream_set(name: str, own: dict[Path, dict], held_out: Sequence[dict[Path, dict]]) -> dict:
    """One family: its results and setting, its members with scores, its rows by weighting.

    Args:
        held_out: families of runs on held-out training clips.
    """
    members, kind = _members(own), _kind(own)
    alike = next((family for family in held_out if _kind(family) == kind), {})
    rows = {preset: stream_table(members, preset) for preset in ("equal", "ctrgcn", "infogcn")}
    rows = {preset: {row["row"]: row for row in found} for preset, found in rows.items()}
    rows["fit"] = _fitted(members, _members(alike))
    about = {"name": name, "results": list(own.values()), "setting": setting(own)}
    return about | {"members": members, "rows": rows}


def _kind(family: dict[Path, dict]) -> tuple[str, str]:
    some = next(iter(family.values()))
    return some["encoder"], some["strategy"]


def _members(runs: dict[Path, dict]) -> list[Member]:
    """The runs of the paper's streams whose scores are kept."""
    paths = [
        str(path)
        for path, result in runs.items()
        if result["stream"] in PAPER_STREAMS and (path / "scores.npz").is_file()
    ]
    return read_members(paths) if paths else []


def _fitted(members: Sequence[Member], held_out: Sequence[Member]) -> dict[str, dict]:
    """Rows of the ensembles, each seed's weights from the held-out runs, of its seed if there."""
    found, seeds = {}, members_by_seed(members)
    held = members_by_seed(held_out)
    for name, streams in ENSEMBLES.items():
        counts = []
        for seed, own in seeds.items():
            fitted = held.get(seed) or next(iter(held.values()), {})
            if set(streams) <= set(own) and set(streams) <= set(fitted):
                weights = fit_weights([fitted[stream] for stream in streams])
                counts.append(fuse([own[stream] for stream in streams], weights).correct)
        if counts:
            found[name] = {"correct": counts}
    return found


def _stream_lines(found: dict) -> list[str]:
    rows, results = [], found["results"]
    for stream in PAPER_STREAMS:
        own = sorted((r for r in results if r["stream"] == stream), key=lambda r: r["seed"])
        if own:
            counts, seeds = ([r[key] for r in own] for key in ("correct", "seed"))
            start = _counted(stream, seeds, counts, own[0]["total"])
            rows.append([*start, _best(own), "–", "–", "–"])
    for name, row in found["rows"]["equal"].items():
        if name not in PAPER_STREAMS:
            others = [found["rows"][key].get(name) for key in ("ctrgcn", "infogcn", "fit")]
            cells = [", ".join(map(str, other["correct"])) if other else "–" for other in others]
            start = _counted(name, row["seeds"] or ["all"], row["correct"], row["total"])
            rows.append([*start, "–", *cells])
    return table(STREAM_HEADER, rows)


def _others(
    single: dict[str, list[dict]], sets: Sequence[dict], tables: Sequence[str]
) -> list[str]:
    """A table of the runs that are in no family of streams and in no folder with a table."""
    shown = [id(result) for found in sets for result in found["results"]]
    rows = []
    for name, own in single.items():
        if id(own[0]) not in shown and name.rpartition("/")[0] not in tables:
            counts, seeds = ([r[key] for r in own] for key in ("correct", "seed"))
            kind = [str(own[0][key]) for key in ("encoder", "stream", "strategy", "epochs")]
            counted = _counted(name, seeds, counts, own[0]["total"])
            rows.append([counted[0], *kind, *counted[1:], _best(own)])
    return ["## Other runs", "", *table(OTHER_HEADER, rows, left=4), ""] if rows else []


def _looked(runs: dict[Path, dict], folder: Path) -> list[str]:
    """Counts with test-time augmentation, beside those of the same weights without."""
    rows = []
    for group in group_runs(runs):
        own = list(group.values())
        asked, counts = own[0]["tta"], [result["tta"]["correct"] for result in own]
        turns = f"{asked['views']}, ±{asked['angle']:g}°" if asked["views"] > 1 else "–"
        kind = [turns, str(asked["crops"]), "yes" if asked["mirror"] else "no", str(asked["looks"])]
        seeds, plain = (", ".join(str(r[key]) for r in own) for key in ("seed", "correct"))
        counted = _counted("", [], counts, own[0]["total"])[2:]
        name = run_name(next(iter(group)), folder)
        rows.append([name, own[0]["protocol"], *kind, seeds, plain, *counted])
    return ["## Several looks at a clip", "", *table(LOOK_HEADER, rows, left=2), ""] if rows else []


def _best(own: Sequence[dict]) -> str:
    """Top-1 at the best epoch, over the seeds."""
    return percent(known(own, "best_correct"), own[0]["total"])


def _counted(name: str, seeds: Sequence, counts: Sequence[int], total: int) -> list[str]:
    listed = ", ".join(map(str, counts))
    share = f"**{percent(counts, total)}**"
    return [name, ", ".join(map(str, seeds)), f"{listed} / {total}", share]


def _wrong(sets: Sequence[dict], runs: dict[Path, dict], folder: Path) -> list[str]:
    """The wrong clips of six streams of all seeds, else of the best run whose scores are kept."""
    complete = [one for one in sets if "6 streams" in one["rows"]["equal"]]
    if complete:
        chosen = max(complete, key=lambda one: max(one["rows"]["equal"]["6 streams"]["correct"]))
        seeds = members_by_seed(chosen["members"]).values()
        members = [own[s] for own in seeds if set(PAPER_STREAMS) <= set(own) for s in PAPER_STREAMS]
        what = f"of all {len(members)} members of {chosen['name']}, with equal weights"
    else:
        scored = {path: r for path, r in runs.items() if (path / "scores.npz").is_file()}
        if not scored:
            return []
        path = max(scored, key=lambda one: scored[one]["correct"])
        members, what = read_members([str(path)]), f"of the run `{path.name}`"
    fused = fuse(members, [1.0] * len(members))
    low, high = (100 * bound for bound in accuracy_interval(fused))
    share = (
        f"{fused.correct}/{fused.total} ({fused.top1:.2%}), 95 % interval {low:.1f} to {high:.1f}"
    )
    lines = ["## Wrong clips", "", f"Those {what}: {share} %.", ""]
    if len(members) > 1:
        lines += [_against_joint(fused, members), ""]
    found = mistakes(fused, members)
    return [*lines, *markdown(found, len(members)), "", *_pictures(found["clips"], folder), ""]


def _pictures(clips: Sequence[dict], folder: Path) -> list[str]:
    """Those of the wrong clips that were drawn, and how to draw more."""
    drawn = {path.stem: path for path in sorted(folder.glob("**/wrong/*.png"))}
    lines = []
    for clip in clips:
        if clip["clip"] in drawn:
            path = drawn[clip["clip"]].relative_to(folder.parent).as_posix()
            said = f"{clip['clip']}: {clip['true']}, taken for {clip['predicted']}"
            lines += [f"![{said}]({path})", ""]
    out = "results/nw_ucla/wrong/ID.png"
    command = f"python -m hocslm_jax render --dataset nw_ucla --clip ID --workdir RUN --out {out}"
    said = ["The bars are of the one run that a picture was drawn with.", ""] if lines else []
    return [*said, *lines, f"To draw one: `{command}`."]


def _against_joint(fused, members: Sequence[Member]) -> str:
    joint = next(member for member in members if member.stream == "joint")
    found = compare(fused, joint.scores)
    low, high = (100 * bound for bound in found["interval"])
    return (
        f"Against the joint stream alone ({found['other_correct']}/{found['total']}): "
        f"{found['only_this']} clips right that it has wrong, {found['only_other']} the other way "
        f"round, McNemar p = {found['p_value']:.2g}, {100 * found['difference']:+.2f} points "
        f"[{low:+.2f}, {high:+.2f}]."
    )


def _done(runs: dict[Path, dict]) -> int:
    """How many runs of the plan are here."""
    planned = {
        path: result
        for path, result in runs.items()
        if result["strategy"] in ("T0", "T3") and "distill" not in result
    }
    full = [r for path, r in planned.items() if r["epochs"] >= FULL and _width(path) >= WIDTH]
    kinds = {(r["encoder"], r["stream"], r["strategy"], r["seed"]) for r in full}
    return len({kind for kind in kinds if kind[1] in PAPER_STREAMS and kind[3] < 3})


def _width(run: Path) -> int:
    """Channels of its encoder's first stage; a run without a config has the dataset's own."""
    return (setting([run]) or {}).get("model", {}).get("width", WIDTH)
