"""`python -m hocslm_jax prepare`: makes a dataset, which `open_store` opens, from raw clips."""

import argparse
import sys
from pathlib import Path

from hocslm_jax.data.prepare.build import prepare
from hocslm_jax.data.prepare.check import check
from hocslm_jax.data.prepare.datasets import DATASETS
from hocslm_jax.data.prepare.notices import measures, notices
from hocslm_jax.data.prepare.writer import BadFile, bad_file
from hocslm_jax.data.store import dataset_folder, read_index
from hocslm_jax.errors import UserError

_COMMON = {
    "--data-dir": dict(type=Path, default=Path("data"), help="default: %(default)s"),
    "--allow-bad": dict(action="store_true", help="leave bad files out instead of failing"),
    "--force": dict(action="store_true", help="rebuild an existing dataset"),
    "--check": dict(action="store_true", help="verify an existing dataset, change nothing"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares one sub-command for each dataset, with its options."""
    datasets = parser.add_subparsers(dest="dataset", metavar="DATASET", required=True)
    for name, (_, about, options) in DATASETS.items():
        dataset = datasets.add_parser(name, help=about, description=about)
        for flag, settings in (options | _COMMON).items():
            dataset.add_argument(flag, **settings)


def run(args: argparse.Namespace) -> None:
    """Prepares or checks a dataset and prints a one-line summary."""
    options = {"name": args.dataset} | vars(args)
    kind, check_only = options.pop("dataset"), options.pop("check")
    if check_only:
        print(check(options["name"], args.data_dir, tell))
    else:
        build_dataset(kind, **options)


def build_dataset(
    kind: str,
    data_dir: str | Path,
    *,
    name: str = "",
    allow_bad: bool = False,
    force: bool = False,
    beam: str | None = None,
    **options,
) -> None:
    """Prepares a dataset unless it is prepared already, and prints a summary and notices.

    Args:
      kind: one of `DATASETS`.
      data_dir: folder of the datasets.
      name: of the dataset; by default its kind.
      allow_bad, force, beam: as in `prepare`.
      options: options of that kind, e.g. `source=`, as on the command line.

    Raises:
      UserError: as `prepare`.
    """
    if kind not in DATASETS:
        raise UserError(f"{kind!r} is not one of the datasets {', '.join(DATASETS)}")
    bad: list[BadFile] = []
    make_recipe, _, _ = DATASETS[kind]
    if beam is not None and options.get("made_by"):
        raise UserError("--beam is for raw files; leave it out with --from")
    on_bad = lambda *what: bad.append(bad_file(*what))  # noqa: E731
    recipe = make_recipe(name or kind, on_bad, **options)
    data_dir = Path(data_dir)
    print(prepare(recipe, data_dir, bad, allow_bad=allow_bad, force=force, beam_options=beam))
    index = read_index(dataset_folder(recipe.name, data_dir))
    tell(index, index.get("measured"))


def tell(index: dict, measured: dict | None) -> None:
    """Prints the measurements of the clips, and a line for each unusual thing about the dataset."""
    if measured:
        print(f"note: {measures(index, measured)}", file=sys.stderr)
        for line in notices(index, measured):
            print(f"note: {line}", file=sys.stderr)
