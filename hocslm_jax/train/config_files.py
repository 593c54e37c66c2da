"""Finds config files. It imports little, so that a wrong name is reported at once."""

from pathlib import Path

from hocslm_jax.errors import UserError

# The config files that `--config=NAME` finds, in an installed package or a clone.
CONFIGS = tuple(folder / "configs" for folder in Path(__file__).resolve().parents[1:3])


def config_file(name: str) -> Path:
    """A config file by its path, or by its name in `configs/`: "nw_ucla", "ablations/streams".

    Raises:
        UserError: there is none.
    """
    own = name.removeprefix("configs/").removesuffix(".py") + ".py"
    for path in (Path(name), *(folder / own for folder in CONFIGS)):
        if path.is_file():
            return path
    known = ", ".join(config_names())
    raise UserError(f"there is no config file {name}: give a path, or one of {known}")


def config_names() -> list[str]:
    """The names of the config files that are not part of a table."""
    return sorted(path.stem for folder in CONFIGS for path in folder.glob("*.py"))
