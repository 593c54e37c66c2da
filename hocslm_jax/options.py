"""The command-line options of the verbs whose modules import JAX or Matplotlib, which is slow.

In: the parser of one verb. Out: its options. This module imports nothing slow, so that `--help`, a
mistyped option and a wrong folder are answered at once.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from hocslm_jax.data.channels import CHANNELS
from hocslm_jax.data.streams import STREAMS
from hocslm_jax.errors import UserError
from hocslm_jax.pose.estimators import OPTIONS as POSE_OPTIONS
from hocslm_jax.train.config_files import config_file
from hocslm_jax.train.hub import local_folder

WEIGHT_TYPES = ("float32", "float16", "bfloat16")  # of the weights in a release
BATCH_SIZE = 64  # clips


def config(text: str) -> str:
    """`FILE:k=v,k=v`. Raises UserError if there is no such config file."""
    config_file(text.partition(":")[0])
    return text


def model(text: str) -> str:
    """A run, release or hub id. Raises UserError if it can only be a folder, and there is none."""
    local_folder(text)
    return text


def plan(parser: argparse.ArgumentParser) -> None:
    """Options of `plan`; `read_settings` reads the remaining flags into `settings`."""
    parser.add_argument("--config", type=config, required=True, help="config file or name:k=v,k=v")
    parser.add_argument("--topology", default="local", help="v5e:16x16, h100:8, b200:8, …, local")
    parser.add_argument("--stage", type=int, help="number of the stage; default: the last")
    parser.add_argument("--json", type=Path, help="JSON file to write")
    parser.add_argument(
        "--compile", action=argparse.BooleanOptionalAction, default=True, help="or only trace"
    )
    parser.set_defaults(settings=[])
    parser.epilog = "Any setting can be changed as in training: --config.optim.lr=0.05."
    parser.allow_abbrev = False


def read_settings(words: Sequence[str]) -> list[tuple[str, str]]:
    """(name, value) of each `--config.NAME=VALUE`, or `--config.NAME VALUE`.

    Raises:
        UserError: another argument.
    """
    settings, words = [], iter(words)
    for word in words:
        name, equals, value = word.partition("=")
        if not name.startswith("--config."):
            raise UserError(f"unrecognized argument {word!r}: plan --help lists the options")
        settings.append((name.removeprefix("--config."), value if equals else next(words, "")))
    return settings


def predict(parser: argparse.ArgumentParser) -> None:
    """Options of `predict`."""
    add = parser.add_argument
    add(
        "--checkpoint",
        type=model,
        action="append",
        required=True,
        metavar="RUN",
        help="run, release or hub id; several, or a folder of several, form an ensemble",
    )
    add(
        "files",
        nargs="*",
        metavar="FILE",
        help=".skeleton, .json, .npy, a video, …; a folder or a pattern",
    )
    add("--out", type=Path, metavar="PICTURE", help="draw the clip and its classes: .png or .gif")
    add("--top", type=int, default=5, help="classes to show (default 5)")
    add("--json", action="store_true", help="print one JSON object per line")
    add("--layout", default="", metavar="NAME", help="joint layout of arrays, if not the model's")
    add("--axes", default="", metavar="LETTERS", help="order of the axes of arrays, e.g. MTVC")
    add("--batch-size", type=int, default=BATCH_SIZE, help="clips at a time (default %(default)s)")
    add("--describe", action="store_true", help="also describe each clip in a sentence")
    add("--lm", metavar="NAME", help="folder or hub id of the language model, if it was moved")
    add("--temperature", type=float, default=0.0, help="0 (default) is greedy; above 0 samples")
    add("--top-k", type=int, default=0, help="sample from the k likeliest tokens; 0: from all")
    add("--top-p", type=float, default=1.0, help="sample from the likeliest tokens that reach p")
    add("--seed", type=int, default=0, help="of the sampling")
    add("--max-tokens", type=int, help="of a sentence (default: as in training)")
    video(parser)
    follow(parser)


def video(parser: argparse.ArgumentParser) -> None:
    """The options of `predict` for videos."""
    for flag, settings in POSE_OPTIONS.items():
        parser.add_argument(flag, **settings)
    parser.add_argument(
        "--save-skeleton",
        type=Path,
        metavar="FILE",
        help="keep a video's skeleton as .npz, which `prepare folder` reads; a folder for several",
    )


def follow(parser: argparse.ArgumentParser) -> None:
    """The options of `predict` for long and live recordings."""
    add = parser.add_argument
    add(
        "--follow",
        action="store_true",
        help="FILE is a long video, or frames as JSON lines (none: on the standard input)",
    )
    add("--window", type=int, metavar="N", help="with --follow: frames per window")
    add("--hop", type=int, metavar="N", help="with --follow: frames between windows")
    add(
        "--wait",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="with --follow: a file ends if it has not grown for so long (default 0)",
    )


def evaluate(parser: argparse.ArgumentParser) -> None:
    """Options of `evaluate`."""
    add = parser.add_argument
    add(
        "models",
        nargs="+",
        type=model,
        metavar="RUN",
        help="run, release or hub id, or a folder of several",
    )
    add("--data-dir", default="data", help="folder of prepared datasets (default data)")
    add("--protocol", help="protocol with the test clips (default: that of the training)")
    add("--out", type=Path, metavar="SCORES.npz", help="write the scores, for `ensemble`")


def zero_shot(parser: argparse.ArgumentParser) -> None:
    """Options of `zero-shot`."""
    add = parser.add_argument
    add("run", type=Path, metavar="RUN", help="workdir of a run with language and data.unseen")
    add("--data-dir", default="data", help="folder of prepared datasets (default data)")
    add("--lm", metavar="NAME", help="folder or hub id of the language model, if it moved")
    add("--sentences", type=int, default=3, help="of each class, from the bank (default 3)")
    add("--clips", type=int, default=-1, help="test clips of either kind, evenly spaced; -1 is all")
    add("--calibration-clips", type=int, default=128, help="of seen classes (default 128)")
    add("--draws", type=int, default=20, help="of examples, if none are published (default 20)")
    add("--seed", type=int, default=0, help="of the draws and the untrained language model")
    add("--no-controls", action="store_true", help="leave the untrained language model out")
    add("--out", type=Path, metavar="FILE.json", help="default zero_shot.json in the run's folder")


def convert(parser: argparse.ArgumentParser) -> None:
    """Options of `convert`."""
    add = parser.add_argument
    add("weights", type=Path, metavar="FILE", help="state dict: .pt, .pth, .safetensors or .npz")
    add("--out", type=Path, required=True, metavar="DIR", help="the release")
    add("--graph", required=True, help="skeleton, e.g. ntu25, ucla20, or a graph.json")
    add("--classes", type=Path, required=True, metavar="FILE", help="a class name a line, in order")
    add("--stream", choices=STREAMS, default="joint", help="stream of its training (default joint)")
    add(
        "--channels",
        choices=CHANNELS,
        help="channels of its clips (default xy, xyz or xyzc, by number)",
    )
    add("--frames", type=int, help="frames of its clips (default 64; for ucla20, 52)")
    add("--dataset", help="dataset of its training (default: by skeleton and classes)")
    add("--protocol", help="protocol of its training (default xsub; for nw_ucla, xview)")
    add("--dtype", choices=WEIGHT_TYPES, default="float32", help="default float32")


def release(parser: argparse.ArgumentParser) -> None:
    """Options of `release`."""
    add = parser.add_argument
    add("runs", nargs="+", type=Path, metavar="RUN", help="finished run, of one stream or more")
    where = parser.add_mutually_exclusive_group(required=True).add_argument
    where("--out", type=Path, metavar="DIR", help="release folder; for several runs, DIR/NAME")
    where("--seal", action="store_true", help="only add checksums to releases, the RUNs")
    add("--dtype", choices=WEIGHT_TYPES, default="float16", help="default float16")
    add("--data-dir", default="data", help="prepared datasets, to score the written weights")


def export(parser: argparse.ArgumentParser) -> None:
    """Options of `export`."""
    add = parser.add_argument
    add("model", type=model, metavar="RUN", help="run, release or hub id of one model")
    add("--format", choices=("onnx", "stablehlo"), required=True, help="of the file")
    add("--out", type=Path, required=True, metavar="FILE", help="the file to write")


def render(parser: argparse.ArgumentParser) -> None:
    """Options of `render`."""
    parser.add_argument("--dataset", required=True, help="a prepared dataset, e.g. nw_ucla")
    parser.add_argument("--data-dir", default="data", help="folder of prepared datasets")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--clip", help="id of the clip")
    what.add_argument("--descriptions", type=int, metavar="N", help="N clips with their sentences")
    parser.add_argument("--workdir", help="a finished run whose predictions or sentences are shown")
    parser.add_argument("--out", required=True, help="picture to write: .png or .gif")
    parser.add_argument("--poses", type=int, default=6, help="poses in a filmstrip")
