"""The paper's Table 7: six streams, and ensembles of two, four and six of them.

    python -m hocslm_jax ablate configs/ablations/streams.py --workdir runs/streams
    python -m hocslm_jax ablate configs/ablations/streams.py --workdir runs/t3 --set strategy=T3

Hardware: NW-UCLA on any accelerator; `--config configs/ntu60_xsub.py` for NTU.
Time: 6 rows x 3 seeds, each as long as its config. On 1 CPU core, 36 minutes per stream with
    --set recipe=short,width=32,frames=32,epochs=10.
Accuracy: the paper's numbers below are for NTU60 X-Sub, one run each; on NW-UCLA the shortened
training reaches 87 to 92 % per stream and 94 % with six (docs/results.md).

The strategy is that of the config file; the paper's is T3. The paper does not give the weights of
its ensembles; PRESET sets them.
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
