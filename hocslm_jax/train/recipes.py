"""Optimiser recipes by name: `:recipe=short` sets all of a recipe's values at once.

A recipe is a mapping from dotted names of settings to values. It is applied before the other
arguments, so `:recipe=short,epochs=20` is `short` with 20 epochs.
"""

RECIPES = {
    # The CTR-GCN recipe of each config file, unchanged.
    "ctr": {},
    # The same with HocSLM's number of epochs.
    "ctr85": {"train.epochs": 85, "optim.milestones": (50, 70)},
    # HocSLM: AdamW, batch 64, 85 epochs, weight decay 0.01. The paper gives no learning rate.
    "adamw": {
        "optim.name": "adamw",
        "optim.lr": 1e-3,
        "optim.weight_decay": 0.01,
        "optim.schedule": "cosine",
        "optim.decay_mask": True,
        "train.epochs": 85,
        "train.batch_size": 64,
    },
    # For CPU cores: the CTR-GCN recipe with a half-cosine schedule. In the search on held-out
    # training clips (configs/search/nw_ucla.py) short runs underfit their training clips, so there
    # is no additional augmentation.
    "short": {"train.epochs": 10, "optim.warmup_epochs": 1, "optim.schedule": "cosine"},
    # For an accelerator: SkateFormer's two augmentations, label smoothing and averaged weights. Not
    # tuned, since 65 or more epochs take too long on CPU cores.
    "long": {
        "train.epochs": 120,
        "optim.schedule": "cosine",
        "optim.ema": 0.999,
        "loss.smoothing": 0.1,
        "data.drop_axis": 0.5,
        "data.drop_joints": 0.5,
    },
}
