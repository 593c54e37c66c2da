"""An encoder that first learns to order the thirds of clips, on NW-UCLA without its test view.

    python -m benchmarks.jigsaw --data-dir data --out runs/jigsaw_clips
    python -m hocslm_jax prepare folder --name jigsaw --source runs/jigsaw_clips --data-dir data
    python -m hocslm_jax ablate configs/search/pretext.py --workdir runs/pretext --seeds 0 1 \
        --out results/nw_ucla/pretext

Data and network are those of configs/search/nw_ucla.py: view 1 trains, view 2 validates, view 3 is
never read. The puzzle needs no labels (Noroozi and Favaro 2016; of skeletons: Lin et al. 2020,
MS2L). `jigsaw` counts how often it is solved; `tuned` starts with that encoder, and is otherwise
`scratch`.
"""

TITLE = "Self-supervised start: small HGLNet, NW-UCLA, view 1 trains, view 2 validates"
CONFIG = "configs/search/nw_ucla.py"
PAIRED = True
ROWS = {
    "scratch": "stream=joint",
    "jigsaw": "dataset=jigsaw,protocol=split,epochs=10",
    "tuned": "start={workdir}/jigsaw_seed{seed}",
}
