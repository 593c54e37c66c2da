"""The paper's Table 5: the global and local halves of space (GSM, LSE) and time (GTA, LTC).

    python -m hocslm_jax ablate configs/ablations/global_local.py --workdir runs/components

Hardware: any accelerator; `--config configs/ntu60_xsub.py` for NTU. In the same workdir as
components.py the row `hglnet` is shared. The published numbers are of NTU60 X-Sub, joint stream,
one run each; `global` is our own row, the opposite of `local`.
"""

TITLE = "Table 5: global and local"
CONFIG = "configs/nw_ucla.py"
ROWS = {
    "local": "strategy=T0,gsm=false,gta=false",  # LSE, LTC
    "no_gsm": "strategy=T0,gsm=false",
    "no_gta": "strategy=T0,gta=false",
    "global": "strategy=T0,lse=false,ltc=false",  # GSM, GTA
    "hglnet": "strategy=T0",
}
PUBLISHED = {"local": 89.71, "no_gsm": 90.20, "no_gta": 90.37, "hglnet": 90.63}
