"""The paper's Table 4: what each of its parts adds to CTR-GCN.

    python -m hocslm_jax ablate configs/ablations/components.py --workdir runs/components
    python -m hocslm_jax ablate configs/ablations/components.py --workdir runs/ntu_components
        --config configs/ntu60_xsub.py

Hardware: any accelerator, for NTU as in its config file. The row `hocslm` starts from `hglnet`.
The published numbers are of NTU60 X-Sub, joint stream, one run each.
"""

TITLE = "Table 4: components"
CONFIG = "configs/nw_ucla.py"
ROWS = {
    "ctrgcn": "strategy=T0,encoder=ctrgcn",
    "cts": "strategy=T0,temporal=ltc",
    "hglnet": "strategy=T0",  # CTS and DHT
    "hocslm": "strategy=T3",  # CTS, DHT and SSF
}
PUBLISHED = {"ctrgcn": 89.96, "cts": 90.31, "hglnet": 90.63, "hocslm": 90.84}
