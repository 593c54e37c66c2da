"""The paper's Table 7: six streams, and ensembles of two, four and six of them.

    python -m hocslm_jax ablate configs/ablations/streams.py --workdir runs/streams

Hardware: any accelerator; `--config configs/ntu60_xsub.py` for NTU. The strategy is the config
file's own; `--set strategy=T3` is the paper's. The paper gives no fusion weights; the table has
those of `PRESET`. The published numbers are of NTU60 X-Sub, one run each.
"""

from hocslm_jax.data.streams import PAPER_STREAMS

TITLE = "Table 7: streams"
CONFIG = "configs/nw_ucla.py"
ROWS = {name: f"stream={name}" for name in PAPER_STREAMS}
PUBLISHED = {
    "joint": 90.84,
    "bone": 91.51,
    "k2": 91.42,
    "joint_motion": 89.15,
    "bone_motion": 88.72,
    "k2_motion": 88.87,
    "2 streams": 92.64,
    "4 streams": 93.32,
    "6 streams": 93.61,
}
PRESET = "equal"  # of the ensembles, see `python -m hocslm_jax ensemble`
