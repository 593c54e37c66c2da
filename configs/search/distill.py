"""Three streams teach one, on NW-UCLA without its test view: view 1 trains, view 2 validates.

    python -m hocslm_jax ablate configs/search/distill.py --workdir runs/distill --seeds 0 1 \
        --out results/nw_ucla/distill

Data and network are those of configs/search/nw_ucla.py. Every row sees each clip as often as the
first, the plain joint stream; the students are joint streams too. `teacher` counts the ensemble.
"""

TITLE = "Distillation: small HGLNet, NW-UCLA, view 1 trains, view 2 validates"
CONFIG = "configs/search/nw_ucla.py"
PAIRED = True
TAUGHT = "distill.teacher={workdir}/teacher_seed{seed}"
ROWS = {
    "joint": "stream=joint",
    "teacher": "streams=joint+bone+joint_motion,test.train_clips=true",
    "student_0.5": f"{TAUGHT},distill.share=0.5",
    "student_0.9": f"{TAUGHT},distill.share=0.9",
}
