"""Estimates a person's position in the camera's coordinates.

BlazePose's landmarks in metres have their origin between the hips, so a walking person would not
move, and two people would overlap. The landmarks in the image give the position of the hips.
"""

import numpy as np

# The assumed focal length, in longer sides of the image: that of most phones and webcams, whose
# field of view is 60 to 75 degrees. A wrong value only scales the distance from the camera.
FOCAL = 0.75


def place(
    world: np.ndarray, pixels: np.ndarray, weights: np.ndarray, size: tuple[int, int]
) -> np.ndarray:
    """The hips' position t, in metres [3], that best projects the person onto the image.

    Solves f (X + t_x) = u (Z + t_z), and likewise for y, by least squares; f is the focal length
    and u the distance from the image's centre.

    Args:
      world: landmarks [V, 3], metres from the hips, x right, y down, z away from the camera.
      pixels: the same in the image, [V, 2].
      weights: weight of each landmark, [V].
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
