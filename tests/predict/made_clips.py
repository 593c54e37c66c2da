"""Random clips, and the text of an NTU file of them."""

import numpy as np


def clip(frames=3, people=1, joints=20):
    rng = np.random.default_rng(frames)
    return rng.normal(size=(frames, people, joints, 3)).astype(np.float32)


def skeleton_file(bodies):
    """The text of an NTU file of bodies [T, M, 25, 3]."""
    lines = [str(len(bodies))]
    for frame in bodies:
        lines.append(str(len(frame)))
        for number, body in enumerate(frame):
            lines += [f"7205759403792{number} 0 1 1 1 1 0 0.1 0.2 2", "25"]
            lines += [" ".join(map(repr, [*joint.tolist(), *[0.5] * 8, 2])) for joint in body]
    return "\n".join(lines) + "\n"
