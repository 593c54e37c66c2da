"""`python -m hocslm_jax release`: exports finished runs as folders of weights.

In: workdirs. Out: for each run `model.safetensors`, `config.json` (the run's config, class names,
skeleton, result and command) and a model card. If the dataset is prepared, the written weights are
scored again, so that the card states their own accuracy and not that of the run.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

from absl import logging

from hocslm_jax.data.channels import USUAL
from hocslm_jax.data.store import dataset_folder
from hocslm_jax.errors import UserError
from hocslm_jax.evaluate.results import accuracy_text
from hocslm_jax.files.atomic import check_folder, write_text
from hocslm_jax.files.checksums import SUMS, seal
from hocslm_jax.models import build_model
from hocslm_jax.predict.accuracy import evaluate
from hocslm_jax.predict.load_model import find_models, load_run
from hocslm_jax.predict.trained_model import TrainedModel
from hocslm_jax.train import release_files

# Settings of the machine that trained; meaningless elsewhere.
PLACES = {"t0": "", "compilation_cache": ""}
DATASETS = {
    "nw_ucla": "Northwestern-UCLA Multiview Action 3D (Kinect v1, 20 joints, 10 classes)",
    "ntu60": "NTU RGB+D (Kinect v2, 25 joints, 60 classes)",
    "ntu120": "NTU RGB+D 120 (Kinect v2, 25 joints, 120 classes)",
}
MODEL_CARD = """\
---
library_name: hocslm_jax
license: other
tags: [skeleton-action-recognition, jax]
---

# {name}

{encoder}, stream `{stream}`, strategy {strategy}, seed {seed}: {parameters:,} parameters, stored in
{dtype}.

- **Trained on** the training clips of protocol `{protocol}` of {dataset},
  and nothing else; {epochs} epochs in the last stage. The data is for research; the weights too.
- **These weights**, on all test clips of that protocol: {released}.
- **The run** they come from, after its last epoch: {trained}. Seeds differ; this is one of them.
- **Input**: {joints}. **Output**: one of {classes}.
- Other sensors, rooms, people and actions than the dataset's are untested.

```python
import hocslm_jax

loaded = hocslm_jax.load_pretrained("{name}")  # this folder, or its name on the hub
loaded.predict([joints])  # joints [T, M, V, C]
logits = loaded.model.apply(loaded.variables, x, train=False)  # x [B, M, T, V, C], one stream
```

```bash
python -m hocslm_jax predict --checkpoint {name} clip.json
```

Trained with hocslm_jax by

```bash
{command}
```
"""


def run(args: argparse.Namespace) -> None:
    """Releases every run.

    Raises:
        UserError: a run is not finished, two have the same name, or weights exceed the type's
            range.
    """
    logging.set_verbosity(logging.ERROR)
    if args.seal:
        for folder in args.runs:
            seal_release(folder)
        return
    check_folder("--out", args.out)
    runs = [one for path in args.runs for one in find_models(path)]
    names = [path.resolve().name for path in runs]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UserError(f"two runs are called {twice[0]}: release them into different folders")
    for path, name in zip(runs, names, strict=True):
        out = args.out / name if len(names) > 1 else args.out
        size, said = release(path, out, args.dtype, args.data_dir)
        print(f"{out}: {size / 1e6:.1f} MB in {args.dtype}, {said}")


def seal_release(folder: Path) -> None:
    """Adds checksums to a release of an older version, after checking that its weights fit.

    Raises:
        UserError: it is not a release, or does not load.
    """
    if not release_files.is_release(folder):
        raise UserError(f"{folder} holds no {release_files.WEIGHTS}: give the folder of a release")
    load_run(folder)
    seal(folder, (release_files.WEIGHTS, release_files.CARD))
    print(f"wrote {folder / SUMS}")


def release(
    workdir: Path, out: Path, dtype: str, data_dir: str | Path, build: Callable = build_model
) -> tuple[int, str]:
    """Writes one release; returns the size of its weights and a sentence on their accuracy.

    Args:
        build: as for `train.setup.build_run`.

    Raises:
        UserError: as `run`, or the scores of the weights are not finite.
    """
    loaded = load_run(workdir, build=build)
    if not loaded.metadata["metrics"]:
        raise UserError(f"{workdir} is not finished: finish its training first")
    about = {key: loaded.metadata[key] for key in ("config", "model", "metrics")}
    about["config"] = without_places(about["config"])
    size = release_files.save(out, loaded.variables, about, dtype)
    said = "not scored, since the dataset is not prepared"
    if dataset_folder(loaded.config.data.dataset, data_dir).is_dir():
        written = load_run(out, build=build)
        scores = evaluate(written, data_dir)
        said = accuracy_text(scores.correct, scores.total)
        counts = {"correct": scores.correct, "total": scores.total}
        release_files.write_card(out, written.metadata | {"released": counts})
    write_text(out / "README.md", card(out.name, loaded, dtype, said))
    return size, said


def without_places(config: dict) -> dict:
    """A config without the paths of the machine that trained."""
    data, lm = config["data"] | {"data_dir": "data"}, config["lm"] | {"folder": ""}
    stages = [
        {**stage, "start": Path(stage["start"]).name} if "start" in stage else stage
        for stage in config["stages"]
    ]
    return config | PLACES | {"data": data, "lm": lm, "stages": stages}


def card(name: str, loaded: TrainedModel, dtype: str, found: str) -> str:
    """The model card: the model, its training data, accuracy and usage."""
    result, data = loaded.metadata["metrics"], loaded.config.data
    return MODEL_CARD.format(
        **{key: result[key] for key in ("encoder", "stream", "strategy", "seed", "epochs")},
        name=name,
        parameters=loaded.metadata["model"]["parameters"],
        dtype=dtype if dtype == "float32" else f"{dtype} (vectors and statistics in float32)",
        dataset=DATASETS.get(data.dataset, data.dataset),
        protocol=data.protocol,
        released=found,
        trained=accuracy_text(result["correct"], result["total"]),
        joints=_input(loaded),
        classes=", ".join(loaded.classes),
        command=result.get("command", "(an unknown command)"),
    )


def _input(loaded: TrainedModel) -> str:
    """Describes the input in a few words."""
    count, channels = loaded.graph.num_joints, loaded.reading.channels
    if channels == USUAL:
        return f"{count} joints in metres, as the dataset has them"
    return f"{count} joints, channels {channels}, as the dataset has them"
