"""The command `hocslm-jax VERB …`, also `python -m hocslm_jax VERB …`: one verb for each task.

A verb is a module with `run(args)`, imported only when it is used. Its options are in a function of
`options`, or in `add_arguments` of the module if that imports little. Only `train` parses its
arguments itself. A UserError is printed as one line; the status is 2.
"""

import argparse
import importlib
import sys

from hocslm_jax import options, terminal

VERBS = {
    "train": ("hocslm_jax.train.command", "train or evaluate an experiment of configs/"),
    "prepare": ("hocslm_jax.data.prepare.command", "turn raw clips into a dataset"),
    "caption": (
        "hocslm_jax.language.caption.command",
        "describe RGB videos with a vision-language model",
    ),
    "ablate": ("hocslm_jax.train.ablate", "run every row of a table with several seeds"),
    "plan": ("hocslm_jax.plan.command", "memory and time of a train step on other devices"),
    "predict": ("hocslm_jax.predict.command", "classify, describe and draw skeleton files"),
    "evaluate": ("hocslm_jax.predict.accuracy", "test accuracy of models"),
    "zero-shot": (
        "hocslm_jax.predict.zero_shot",
        "recognise classes that a run was never trained on",
    ),
    "ensemble": (
        "hocslm_jax.evaluate.ensemble_command",
        "fuse the scores of several runs, and test the gain",
    ),
    "convert": (
        "hocslm_jax.predict.convert",
        "convert PyTorch CTR-GCN weights to a release",
    ),
    "release": ("hocslm_jax.predict.release", "export finished runs as folders of weights"),
    "export": ("hocslm_jax.export.command", "export a trained model as one ONNX or StableHLO file"),
    "report": ("hocslm_jax.evaluate.report", "tables and figures of finished runs"),
    "render": ("hocslm_jax.predict.render", "draw clips with the predictions of a run"),
}


def main(argv: list[str] | None = None) -> int:
    """Runs one verb; returns the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    return terminal.run(lambda: _act(argv))


def _act(argv: list[str]) -> int | None:
    parser = argparse.ArgumentParser(
        prog="hocslm-jax",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="verbs:\n" + "\n".join(f"  {verb:10}{about}" for verb, (_, about) in VERBS.items()),
    )
    parser.add_argument(
        "verb",
        choices=VERBS,
        metavar="VERB",
        help="a verb below; VERB --help lists its options",
    )
    verb = parser.parse_args(argv[:1]).verb
    module, about = VERBS[verb]
    if verb == "train":
        return importlib.import_module(module).main([f"hocslm-jax {verb}", *argv[1:]])
    parser = argparse.ArgumentParser(prog=f"hocslm-jax {verb}", description=about)
    declare_options(verb, parser)
    args, rest = parser.parse_known_args(argv[1:])
    if "settings" in args:
        args.settings = options.read_settings(rest)
    elif rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    return importlib.import_module(module).run(args)


def declare_options(verb: str, parser: argparse.ArgumentParser) -> None:
    """Adds the options of any verb but `train`; imports no JAX."""
    declare = getattr(options, verb.replace("-", "_"), None)
    (declare or importlib.import_module(VERBS[verb][0]).add_arguments)(parser)


if __name__ == "__main__":
    sys.exit(main())
