"""The training strategies of the paper's Table 6 and two controls, on NW-UCLA.

    python -m hocslm_jax ablate configs/ablations/strategies.py --workdir runs/strategies

Data: NW-UCLA, with the caption bank; a small language model pretrained on it, one for each seed.
Hardware: any accelerator. On CPU cores add `--set width=32,epochs=15,finetune.epochs=6,repeat=1`.
Rows whose first stage is T0 share the T0 row of their seed. The published numbers are of NTU60
X-Sub, joint stream, one run each.
"""

TITLE = "Table 6: training strategies"
CONFIG = "configs/nw_ucla.py"
ROWS = {name: f"strategy={name}" for name in ("T0", "T0+", "T1", "T2", "T3", "T4", "shuffled")}
PUBLISHED = {"T0": 90.63, "T1": 89.08, "T2": 90.73, "T3": 90.84, "T4": 68.23}
PAIRED = True  # T0+, T1, T3 and the control go on from the T0 of their seed
