"""The training strategies of the paper's Table 6 and two controls, on NW-UCLA.

    python -m hocslm_jax ablate configs/ablations/strategies.py --workdir runs/strategies

Data: NW-UCLA, with the caption bank; a small language model pretrained on it, one for each seed.
Hardware: any accelerator. On CPU cores add `--set width=32,epochs=15,finetune.epochs=6,repeat=1`.
Rows whose first stage is T0 share the T0 row of their seed.
"""

CONFIG = "configs/nw_ucla.py"
ROWS = {name: f"strategy={name}" for name in ("T0", "T0+", "T1", "T2", "T3", "T4", "shuffled")}
