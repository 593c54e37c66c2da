"""Classifies a `.skeleton` file of NTU RGB+D with an exported model, without hocslm_jax.

    python examples/onnx_classify.py model.onnx clip.skeleton

For NTU models of the streams joint and bone and their motions. It uses the bodies that move most.
"""

import json
import sys

import numpy as np
import onnxruntime


def read_bodies(path: str) -> np.ndarray:
    """The joints of a file, float32 [T, M, 25, 3]; zeros where a body is absent."""
    with open(path) as file:
        rows = iter([line.split() for line in file if line.strip()])
    frames, bodies = int(next(rows)[0]), {}
    for frame in range(frames):
        for _ in range(int(next(rows)[0])):
            body = bodies.setdefault(next(rows)[0], np.zeros((frames, 25, 3), np.float32))
            count = int(next(rows)[0])
            body[frame] = [[float(word) for word in next(rows)[:3]] for _ in range(count)]
    return np.stack(list(bodies.values()), axis=1)


def prepare(joints: np.ndarray, about: dict) -> np.ndarray:
    """The network's input of one clip, float32 [1, M, T, V, 3]."""
    clip, graph = about["clip"], about["graph"]
    if not about["ntu"] or clip["stream"].removesuffix("_motion") not in ("joint", "bone"):
        sys.exit("this example prepares clips for models of NTU, streams joint and bone")
    bodies = [body[body.any(axis=(1, 2))].reshape(-1, 3) for body in joints.swapaxes(0, 1)]
    order = np.argsort([-points.var(axis=0).sum() for points in bodies])
    joints = joints[:, order[: clip["num_persons"]]]
    joints = joints[joints.any(axis=(1, 2, 3))]  # frames with a body, [T, M, 25, 3]
    first = joints[joints[:, 0].any(axis=(1, 2)).argmax(), 0, graph["centre"]]
    joints = np.where(joints.any(axis=(2, 3), keepdims=True), joints - first, 0)
    margin = int((1 - clip["test_interval"]) * len(joints) / 2)
    joints, frames = joints[margin : len(joints) - margin], clip["frames"]
    length = len(joints)
    at = ((np.arange(frames) + 0.5) * length / frames - 0.5).clip(0, length - 1)
    before, late = at.astype(int), (at % 1)[:, None, None, None]
    x = joints[before] * (1 - late) + joints[np.minimum(before + 1, length - 1)] * late
    if clip["stream"].startswith("bone"):
        x = x - x[:, :, graph["parents"]]
    if clip["stream"].endswith("_motion"):
        x = np.concatenate([x[1:] - x[:-1], np.zeros_like(x[:1])])
    lacking = clip["num_persons"] - x.shape[1]
    more = x[:, :1] * (clip["second_person"] == "copy")
    return np.concatenate([x, *[more] * lacking], axis=1).swapaxes(0, 1)[None].astype(np.float32)


if __name__ == "__main__":
    session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
    about = json.loads(session.get_modelmeta().custom_metadata_map["hocslm_jax"])
    logits = session.run(None, {"x": prepare(read_bodies(sys.argv[2]), about)})[0][0]
    shares = np.exp(logits - logits.max())
    for label in np.argsort(-shares)[:5]:
        print(f"{100 * shares[label] / shares.sum():5.1f} %  {about['classes'][label]}")
