"""Distillation of three streams into one, on NW-UCLA without its test view.

    python -m hocslm_jax ablate configs/search/distill.py --workdir runs/distill --seeds 0 1

Data: NW-UCLA, protocol `view2_val`: view 1 trains, view 2 validates, view 3 is never read.
Hardware: 2 CPU cores suffice; the network is the small one of configs/search/nw_ucla.py.
Time: 4 to 10 minutes per row and seed on 2 CPU cores.
Accuracy: about 70 % for the plain joint stream, with 3 points between seeds.

All rows see each clip equally often. The students are joint streams; `teacher` is the ensemble.
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
