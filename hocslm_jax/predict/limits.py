"""How large a model may be that others describe: a config of a few bytes must not fill the memory.

In: what a run or a release says of its model. Out: nothing, or a UserError. The bounds are ten or
more times what published skeleton models have; parameters are bounded by the file they are in.
"""

from hocslm_jax.errors import UserError
from hocslm_jax.graph import Graph

MOST = {  # of each setting
    "data.frames": 20_000,
    "data.num_persons": 100,
    "model.width": 4096,
    "model.gsm_width": 4096,
    "lm.projector_width": 65_536,
}
MAX_BLOCKS, MAX_STAGES = 200, 10
MAX_POINTS = 1_000_000  # of a clip: frames x persons x joints; NTU's longest have 15,000
MAX_CLASSES = 100_000


def check_sizes(config, graph: Graph, classes: tuple, where: object) -> None:
    """Refuses sizes that are no numbers, or absurd.

    Args:
        config: with sections data, model and lm.

    Raises:
        UserError: names the setting and `where` it is said.
    """
    for name, most in MOST.items():
        section, key = name.split(".")
        value = (config.get(section) or {}).get(key, 1)
        if type(value) is not int or not 0 < value <= most:
            raise _absurd(where, name, value, f"1 to {most}")
    stages = config["model"].get("stages") or (1,)
    blocks = (
        [n for n in stages if type(n) is int and n > 0] if isinstance(stages, list | tuple) else []
    )
    if len(blocks) != len(stages) or len(blocks) > MAX_STAGES or sum(blocks) > MAX_BLOCKS:
        raise _absurd(where, "model.stages", stages, f"at most {MAX_BLOCKS} blocks")
    points = config["data"].get("frames", 1) * config["data"].get("num_persons", 1)
    if points * graph.num_joints > MAX_POINTS:
        size = f"{points} x {graph.num_joints} joints"
        raise _absurd(where, "a clip", size, f"at most {MAX_POINTS} points")
    if not 0 < len(classes) <= MAX_CLASSES or not all(isinstance(name, str) for name in classes):
        raise _absurd(where, "the list of classes", f"{len(classes)} entries", "names")


def _absurd(where: object, name: str, value: object, expected: str) -> UserError:
    return UserError(f"{where}: {name} is {str(value)[:60]}, expected {expected}; fetch it again")
