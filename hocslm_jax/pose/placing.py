"""Where a person stands before the camera.

BlazePose's landmarks in metres have their origin between the hips: somebody who walks stays in
place, and two people are inside each other. Landmarks of the image tell where the hips are.
"""

import numpy as np

# The focal length in longer sides of the image, where nobody knows it: as of most phones and
# webcams, which see 60 to 75 degrees. A wrong one scales the distance from the camera alone.
FOCAL = 0.75


def place(
    world: np.ndarray, pixels: np.ndarray, weights: np.ndarray, size: tuple[int, int]
) -> np.ndarray:
    """The hips' place t that projects the person onto its image, metres [3].

    Solves f (X + t_x) = u (Z + t_z), and likewise for y, by least squares; f is the focal length
    and u the distance from the image's centre.

    Args:
      world: landmarks [V, 3], metres from the hips, x right, y down, z away from the camera.
      pixels: the same in the image, [V, 2].
      weights: how much each counts, [V].
      size: width and height of the image.
    """
    focal = FOCAL * max(size)
    u = pixels - np.asarray(size) / 2  # [V, 2]
    zero, one = np.zeros(len(u)), np.full(len(u), focal)
    rows = np.concatenate(
        [np.stack([one, zero, -u[:, 0]], axis=1), np.stack([zero, one, -u[:, 1]], axis=1)]
    )
    wanted = (u * world[:, 2:] - focal * world[:, :2]).T.reshape(-1)
    scale = np.sqrt(np.concatenate([weights, weights]))
    found, *_ = np.linalg.lstsq(rows * scale[:, None], wanted * scale, rcond=None)
    return found
