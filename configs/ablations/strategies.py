"""The training strategies of the paper's Table 6 and two controls, T0+ and shuffled captions.

    python -m hocslm_jax ablate configs/ablations/strategies.py --workdir runs/strategies

Data: NW-UCLA with the caption bank; a small language model is pretrained on it, one per seed.
Hardware: any accelerator.
Time: 7 rows x 3 seeds, each as long as its config. On 2 CPU cores use a small network:
    --set width=16,frames=16,repeat=1,epochs=15,finetune.epochs=6 (25 minutes per seed).
Accuracy: the paper's numbers below are for NTU60 X-Sub, joint stream, one run each. The small
network reaches 77 % on NW-UCLA, and 19 to 24 % with T2 and T4 (docs/results.md).

Rows whose first stage is T0 start from the T0 run of their seed.
"""

TITLE = "Table 6: training strategies"
CONFIG = "configs/nw_ucla.py"
ROWS = {name: f"strategy={name}" for name in ("T0", "T0+", "T1", "T2", "T3", "T4", "shuffled")}
PUBLISHED = {"T0": 90.63, "T1": 89.08, "T2": 90.73, "T3": 90.84, "T4": 68.23}
PAIRED = True  # T0+, T1, T3 and the control start from the T0 run of their seed
