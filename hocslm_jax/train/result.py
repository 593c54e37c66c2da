"""The result of a run: `result.json`, and one line of text.

In: a `Run`, its totals and the scores of its last epoch. Out: a plain dict, a sentence.
"""

import jax

from hocslm_jax.evaluate.results import accuracy_text
from hocslm_jax.evaluate.scores import Scores
from hocslm_jax.train import environment
from hocslm_jax.train.metrics import Totals
from hocslm_jax.train.setup import Run


def make_result(run: Run, totals: Totals, scores: Scores) -> dict:
    """The content of `result.json`; `top1` is from the last epoch, `best_*` from the best one."""
    config, split = run.config, "val" if run.has_val else "test"
    habit = "" if run.has_val else ", the literature's habit"
    seconds = totals.train_seconds
    speed = totals.steps_timed * config.train.batch_size / seconds if seconds else None
    return {
        "dataset": config.data.dataset,
        "protocol": config.data.protocol,
        "encoder": config.model.encoder,
        "stream": "+".join(run.streams) or config.data.stream,
        "strategy": config.strategy,
        "stage": config.stage + 1,
        "trained": list(run.stage.train),
        "origin": run.origin,
        "language_model": language_model(run),
        "seed": config.seed,
        "epochs": config.train.epochs,
        "steps": run.total_steps,
        "top1": scores.top1,
        "correct": scores.correct,
        "total": scores.total,
        "best_correct": totals.best_correct,
        "best_epoch": totals.best_epoch,
        "best_split": split,
        "best_note": f"best epoch chosen on the {split} split{habit}",
        **({"best_val_correct": totals.best_val} if run.has_val else {}),
        **stream_counts(totals, scores),
        **({"distill": config.distill.to_dict()} if config.distill.share else {}),
        "samples_per_s": speed,
        "wall_clock_s": totals.wall_clock_s,
        "peak_memory_bytes": environment.peak_memory_bytes(),
        "machine": environment.describe_machine(),
        "versions": environment.describe_versions(),
        "command": environment.command(),
    }


def withdraw_result(run: Run) -> None:
    """Removes the result of a run that continues to train: only finished runs have a result."""
    for folder in (run.workdir, *(run.workdir / stream for stream in run.streams)):
        (folder / "result.json").unlink(missing_ok=True)


def language_model(run: Run) -> dict | None:
    """The language model that the stage trained with, or None."""
    if run.language is None:
        return None
    name = run.config.lm.name or "pretrained here"
    size = sum(leaf.size for leaf in jax.tree.leaves(run.language.params))
    return {"name": name, "parameters": size, "dtype": run.language.model.dtype}


def stream_counts(totals: Totals, scores: Scores) -> dict:
    """Counts of each of several streams; `scores` are those of their equal-weight ensemble."""
    counts = {
        name: {
            "correct": part.correct,
            "total": part.total,
            "best_correct": totals.streams[name][0],
            "best_epoch": totals.streams[name][1],
        }
        for name, part in scores.parts.items()
    }
    return {"ensemble": "equal", "streams": counts} if counts else {}


def summary(result: dict) -> str:
    total = result["total"]
    if "classifier" not in result["trained"]:
        return f"{result['epochs']} epochs of {'+'.join(result['trained'])}, no classifier yet"
    together = f"{len(result['streams'])} streams together: " if "streams" in result else ""
    split = result.get("best_split", "test")
    return (
        f"{together}test {accuracy_text(result['correct'], total)} after {result['epochs']} epochs "
        f"(best epoch {result['best_epoch']}, chosen on the {split} split: "
        f"{accuracy_text(result['best_correct'], total)})"
    )


def epoch_line(
    run: Run, epoch: int, seen: dict[str, float], scores: Scores, val: Scores | None
) -> str:
    """One line about an epoch, for the terminal.

    Args:
        seen: means of the training metrics since the last evaluation.
        scores, val: of the test split, and of the val split if there is one.
    """
    line = f"epoch {epoch}/{run.config.train.epochs}"
    shown = {"loss": "loss {:.4f}", "top1": "train {:.2%}", "caption_loss": "text {:.4f}"}
    line += "".join(f"  {text.format(seen[key])}" for key, text in shown.items() if key in seen)
    if seconds := seen.get("step_time_s"):
        line += f"  {run.config.train.batch_size / seconds:.1f} clips/s"
    if "classifier" not in run.stage.train:
        return line
    line += f"  test {accuracy_text(scores.correct, scores.total)}"
    line += f"  val {accuracy_text(val.correct, val.total)}" if val else ""
    streams = ", ".join(f"{name} {part.top1:.2%}" for name, part in scores.parts.items())
    return line + (f" ({streams})" if streams else "")
