"""The paper's Table 5: the global and local modules of space (GSM, LSE) and time (GTA, LTC).

    python -m hocslm_jax ablate configs/ablations/global_local.py --workdir runs/components

Hardware: NW-UCLA on any accelerator; `--config configs/ntu60_xsub.py` for NTU.
Time: 4 rows x 3 seeds, each as long as its config. On 2 CPU cores use a small network:
    --set recipe=short,width=16,frames=16,repeat=1,epochs=15,eval_every=5 (10 minutes per seed).
Accuracy: the paper's numbers below are for NTU60 X-Sub, joint stream, one run each. The small
network reaches 76 to 79 % on NW-UCLA, and no row is significantly better (docs/results.md).

In the workdir of components.py the row `hglnet` is shared with that table.
"""

TITLE = "Table 5: global and local modules (local: LSE and LTC; hglnet: + GSM and GTA)"
CONFIG = "configs/nw_ucla.py"
ROWS = {
    "local": "strategy=T0,gsm=false,gta=false",
    "no_gsm": "strategy=T0,gsm=false",
    "no_gta": "strategy=T0,gta=false",
    "hglnet": "strategy=T0",
}
PUBLISHED = {"local": 89.71, "no_gsm": 90.20, "no_gta": 90.37, "hglnet": 90.63}
