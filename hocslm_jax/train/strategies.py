"""The training strategies of the HocSLM paper (section 3.5, Table 6) and two additional controls.

`:strategy=T3` puts one of these lists into `config.stages`; a config file may define its own list.
The fields are those of `hocslm_jax.train.stages.Stage`. The language model is frozen in all.
"""

_CLASSIFY = {"train": ("encoder", "classifier"), "losses": ("cls",)}
_FROM_T0 = {"start": "previous", "take": ("encoder", "classifier"), "optim": "finetune"}
_JOINT = {
    "train": ("encoder", "classifier", "projector", "prompt"),
    "losses": ("cls", "gen"),
    "optim": "finetune",
}
_FUSION = ("encoder", "projector", "prompt")

STRATEGIES = {
    # Classification alone.
    "T0": (_CLASSIFY,),
    # Control: T0 and as many further epochs as in T3, without language.
    "T0+": (_CLASSIFY, _CLASSIFY | _FROM_T0),
    # The projector learns to describe with a trained encoder; then both learn to classify.
    "T1": (
        _CLASSIFY,
        {
            "train": ("projector", "prompt"),
            "losses": ("gen",),
            "start": "previous",
            "take": ("encoder",),
            "optim": "finetune",
        },
        {
            "train": ("encoder", "projector", "classifier"),
            "losses": ("cls",),
            "start": "previous",
            "take": _FUSION,
            "optim": "finetune",
            "classify_on": "visual",
        },
    ),
    # Language first, from scratch, hence the larger rates; then classification.
    "T2": (
        {
            "train": _FUSION,
            "losses": ("gen",),
            "optim": "finetune",
            "lr": 1e-3,
            "encoder_scale": 1.0,
        },
        _CLASSIFY | {"start": "previous", "take": _FUSION, "optim": "finetune"},
    ),
    # HocSLM: T0, then both losses together.
    "T3": (_CLASSIFY, _JOINT | _FROM_T0),
    # Both losses together, from a random encoder.
    "T4": (_JOINT,),
    # Control: T3 with the captions shuffled between clips.
    "shuffled": (_CLASSIFY, _JOINT | _FROM_T0 | {"captions": "shuffled"}),
}
