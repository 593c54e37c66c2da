"""Which test-time augmentation helps, on validation clips: turned, cropped and mirrored looks.

    python -m benchmarks.looks runs/search/sgd_0.1_seed* --out results/nw_ucla/looks

In: finished runs of a validation protocol. Out: `table_looks.md` and `.json`, a row for each way to
look at a clip, each run beside its own plain count. Each look is scored once and serves every row
that has it. A run on test clips is refused: whoever chooses by these chooses on the test split.
"""

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict

from benchmarks.record import measured_here, write_result
from configs import base
from hocslm_jax.data.augment import ClipView, views_of
from hocslm_jax.data.protocols import VALIDATION
from hocslm_jax.errors import UserError
from hocslm_jax.evaluate.ablation_table import make_rows, markdown
from hocslm_jax.train import augmented_test, checkpoint, multi_stream, setup
from hocslm_jax.train.state import eval_variables

TITLE = "Test-time augmentation on validation clips"
# (test.views, test.angle, test.crops, test.mirror), see configs/base.py
ROWS = {
    "as it is": (1, 0.0, 1, False),
    "3 turns, 10°": (3, 10.0, 1, False),
    "3 turns, 20°": (3, 20.0, 1, False),
    "3 turns, 30°": (3, 30.0, 1, False),
    "5 turns, 20°": (5, 20.0, 1, False),
    "5 turns, 30°": (5, 30.0, 1, False),
    "3 crops": (1, 0.0, 3, False),
    "mirror": (1, 0.0, 1, True),
    "3 turns, 20°, 3 crops": (3, 20.0, 3, False),
    "3 turns, 20°, mirror": (3, 20.0, 1, True),
}


def open_run(workdir: Path) -> setup.Run:
    """A finished run as its own config builds it.

    Raises:
        UserError: none there, or its protocol tests on test clips.
    """
    saved = checkpoint.read_run(workdir)["config"]
    data = saved["data"]
    if data["protocol"] not in VALIDATION.get(data["dataset"], {}):
        raise UserError(
            f"{workdir} is of protocol {data['protocol']}, whose test clips must not choose: give "
            f"runs of {' or '.join(VALIDATION.get(data['dataset'], {'a validation protocol'}))}"
        )
    config = ConfigDict(base.defaults().to_dict() | saved)  # a run may be older than a setting
    return setup.build_run(config, workdir)


def counts(run: setup.Run, variables: dict, rows: dict[str, tuple]) -> dict[str, dict]:
    """What each row counts of a run: {"seed", "correct", "total"}."""
    views = {view for settings in rows.values() for view in views_of(*settings)}
    looks = {view: score(run, variables, view) for view in views}
    found = {}
    for name, settings in rows.items():
        scores = augmented_test.join(run, [looks[view] for view in views_of(*settings)])
        found[name] = {"seed": run.config.seed, "correct": scores.correct, "total": scores.total}
    return found


def score(run: setup.Run, variables: dict, view: ClipView):
    return multi_stream.score(run, variables, run.test_batches(view=view))


def table(found: Iterable[dict[str, dict]]) -> dict:
    """The rows over all runs; gains are run by run."""
    found = list(found)
    results = {name: [one[name] for one in found] for name in ROWS}
    return {"title": TITLE, "paired": True, "rows": make_rows(results, {})}


def run(args: argparse.Namespace) -> None:
    found = []
    for workdir in args.runs:
        one = open_run(workdir)
        variables = checkpoint.restore_variables(workdir, eval_variables(one.abstract_state))
        found.append(counts(one, variables, ROWS))
        print(f"{workdir}: " + json.dumps({name: c["correct"] for name, c in found[-1].items()}))
    result = table(found) | {"runs": [path.name for path in args.runs]} | measured_here("looks")
    lines = [f"# {TITLE}", "", *markdown(result), "", f"Made by `{result['command']}`."]
    print("\n".join(lines))
    if args.out:
        write_result(args.out / "table_looks.json", result)
        (args.out / "table_looks.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("runs", nargs="+", type=Path, help="finished runs on validation clips")
    parser.add_argument("--out", type=Path, help="where the table goes")
    return parser.parse_args(argv)


if __name__ == "__main__":
    flags.FLAGS.mark_as_parsed()  # the checkpoints' library asks for it
    try:
        run(parse())
    except UserError as error:
        sys.exit(f"error: {error}")
