"""The paper's Table 4: what CTS, DHT and SSF add to CTR-GCN.

    python -m hocslm_jax ablate configs/ablations/components.py --workdir runs/components
    python -m hocslm_jax ablate configs/ablations/components.py --workdir runs/ntu_components
        --config configs/ntu60_xsub.py

Hardware: NW-UCLA on any accelerator, NTU as in its config file.
Time: 4 rows x 3 seeds, each as long as its config. On 2 CPU cores use a small network:
    --set recipe=short,width=16,frames=16,repeat=1,epochs=15,eval_every=5 (30 minutes per seed).
Accuracy: the paper's numbers below are for NTU60 X-Sub, joint stream, one run each. The small
network reaches 76 to 79 % on NW-UCLA, and no row is significantly better (docs/results.md).

The row `hocslm` starts from the run of `hglnet`.
"""

TITLE = "Table 4: components (CTR-GCN; + CTS; + DHT: HGLNet; + SSF: HocSLM)"
CONFIG = "configs/nw_ucla.py"
ROWS = {
    "ctrgcn": "strategy=T0,encoder=ctrgcn",
    "cts": "strategy=T0,temporal=ltc",
    "hglnet": "strategy=T0",  # CTS and DHT
    "hocslm": "strategy=T3",  # CTS, DHT and SSF
}
PUBLISHED = {"ctrgcn": 89.96, "cts": 90.31, "hglnet": 90.63, "hocslm": 90.84}
