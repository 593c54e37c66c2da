"""Training recipes compared on NW-UCLA without its test view.

    python -m hocslm_jax ablate configs/search/nw_ucla.py --workdir runs/search --seeds 0 1 2

Data: NW-UCLA, protocol `view2_val`: view 1 trains, view 2 validates, view 3 is never read.
Hardware: 2 CPU cores suffice; the network is a small HGLNet.
Time: 2 to 6 minutes per row and seed on 2 CPU cores (20 epochs, each clip once per epoch).
Accuracy: 63 to 73 %, with up to 5 points between seeds.

Such short runs say little about long ones. For long runs add
`--set protocol=xview_val,width=64,frames=52,repeat=5,epochs=65` on an accelerator.
"""

from hocslm_jax.train import experiment

TITLE = "Recipes: small HGLNet, NW-UCLA, view 1 trains, view 2 validates"
CONFIG = "configs/search/nw_ucla.py"
ADAMW = "optim=adamw,weight_decay=0.01,decay_mask=True"
ROWS = {
    "sgd_0.1": "lr=0.1",
    "sgd_0.03": "lr=0.03",
    "adamw_1e-3": f"{ADAMW},lr=1e-3",
    "adamw_4e-3": f"{ADAMW},lr=4e-3",
    "rotation_30": "rotation=30",
    "rotation_90": "rotation=90",
    "crop": "crop=0.4",
    "mirror": "mirror=0.5",
    "scale": "scale=0.2",
    "jitter": "jitter=0.02",
    "drop_axis": "drop_axis=0.25",
    "drop_joints": "drop_joints=0.25",
    "smoothing": "smoothing=0.1",
    "mixup": "mixup=0.2",
    "ema": "ema=0.99",
    "dropout": "dropout=0.2",
}


def get_config(arg: str = ""):
    config = experiment.defaults()
    config.data.update(protocol="view2_val", frames=32, repeat=1)
    config.model.update(width=16, stages=(2, 1, 1))
    config.optim.update(schedule="cosine", warmup_epochs=1)
    config.train.update(epochs=20, eval_every=0)
    return experiment.apply(config, arg)
