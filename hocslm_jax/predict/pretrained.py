"""`hocslm_jax.load_pretrained`: a released model by its folder or its name on the Hugging Face hub.

In: what `python -m hocslm_jax release` wrote. Out: a `LoadedRun`: `model`, `variables` and
`metadata`, ready for `model.apply(variables, x, train=False)`, and `predict(clips)`.
"""

from pathlib import Path

from hocslm_jax import sharding
from hocslm_jax.data import pipeline
from hocslm_jax.data.store import open_store
from hocslm_jax.errors import UserError
from hocslm_jax.evaluate.scores import Scores, collect_scores
from hocslm_jax.models.qwen3 import resolve
from hocslm_jax.predict.model import LoadedRun, load_run
from hocslm_jax.predict.release_files import is_release
from hocslm_jax.train.jitted import make_predict


def load_pretrained(name_or_path: str | Path, lm: str | Path | None = None) -> LoadedRun:
    """A released model, or a run's, on the devices at hand.

    Args:
        name_or_path: a folder; or a hub id, `owner/name` or, of several models in one repository,
            `owner/name/model`. What is fetched is cached by huggingface_hub.
        lm: a language model to describe with, folder or hub id.

    Raises:
        UserError: neither a folder nor an id that can be had, or nothing whole in it.
    """
    folder = fetch(name_or_path)
    inside = sorted(path.parent.name for path in folder.glob("*/model.safetensors"))
    if inside and not is_release(folder) and not (folder / "checkpoints").is_dir():
        raise UserError(f"{name_or_path} holds several models: add /{' or /'.join(inside)}")
    return load_run(folder, lm)


def fetch(name_or_path: str | Path) -> Path:
    """The local folder of a model, as `load_pretrained` takes it."""
    if Path(name_or_path).is_dir():
        return Path(name_or_path)
    owner, _, rest = str(name_or_path).partition("/")
    name, _, model = rest.partition("/")
    folder = resolve(f"{owner}/{name}")
    if not (folder / model).is_dir():
        raise UserError(f"{owner}/{name} has no model {model!r}")
    return folder / model


def evaluate(loaded: LoadedRun, data_dir: str | Path) -> Scores:
    """Scores of all test clips of the protocol that the model was trained by.

    Args:
        data_dir: where `python -m hocslm_jax prepare` put the dataset.

    Raises:
        UserError: the dataset is not there, or is not the one that the model was trained on.
    """
    data = loaded.config.data
    store = open_store(data.dataset, data_dir)
    if store.classes != loaded.classes:
        raise UserError(f"{data.dataset} in {data_dir} has other classes than {loaded.workdir}")
    rows = store.rows(data.protocol, "test")
    size = loaded.batch_size(len(rows), loaded.config.train.eval_batch_size)
    sharding.check_batch(loaded.mesh, size, "the batch")
    predict = make_predict(loaded.model, loaded.mesh, size)
    batches = pipeline.eval_batches(store, data.protocol, "test", loaded.feed, batch_size=size)
    return collect_scores(lambda x: predict(loaded.variables, x), batches, store, rows)
