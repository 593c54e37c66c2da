"""The interface of trained models and ensembles, which classify and describe clips.

In: joints [T, M, V, 3] in metres. Out: a `Prediction` for each clip, or its features. `load_model`
creates these objects from the files of a run or a release.
"""

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy.special import softmax

from hocslm_jax.data.channels import coordinates_of
from hocslm_jax.data.prepare.filmed import recording_of
from hocslm_jax.data.prepare.measure import coordinate_range, skeleton_size
from hocslm_jax.data.prepare.ntu.bodies import Compat
from hocslm_jax.data.prepare.readers.clips import Reading, clip_of
from hocslm_jax.errors import UserError
from hocslm_jax.graph import Graph
from hocslm_jax.language.describe import Decoding, describe
from hocslm_jax.language.open import Language
from hocslm_jax.pose.estimators import Pose, estimate, open_pose
from hocslm_jax.predict.clip_files import check_clip, read_joints

BATCH_SIZE = 64


@dataclasses.dataclass(frozen=True)
class Prediction:
    """The prediction for one clip.

    Attributes:
      name: the likeliest class.
      probabilities: of all classes, the likeliest first.
      description: a generated sentence, or None if not requested.
      frames, persons: of the given clip.
      persons_used: the network saw the first so many persons.
      size: of the skeleton, see `measure.skeleton_size`, in the unit of the clip.
      coordinates: the smallest and the largest.
      notes: sentences about unusual properties of the clip.
    """

    name: str
    probabilities: dict[str, float]
    description: str | None
    frames: int
    persons: int
    persons_used: int
    size: float
    coordinates: tuple[float, float]
    notes: tuple[str, ...] = ()

    def top(self, count: int = 5) -> list[tuple[str, float]]:
        """The likeliest classes with their probabilities, the likeliest first."""
        return list(self.probabilities.items())[:count]


class Predictor:
    """Base class of a single model and an ensemble.

    Attributes:
      members: the models; a single model contains only itself.
      graph: the skeleton of the clips.
      classes: class names in the order of the logits.
      compat: how clips of NTU are read, see `clip_files.check_clip`.
      reading: how clips are read, and their channels.
      language: the language model that describes clips; raises UserError if there is none.
    """

    members: tuple["Predictor", ...]
    graph: Graph
    classes: tuple[str, ...]
    compat: Compat | None
    reading: Reading
    language: Language

    def predict(
        self,
        clips: np.ndarray | Sequence,
        decoding: Decoding | None = None,
        batch_size: int | None = None,
        layout: str = "",
    ) -> Prediction | list[Prediction]:
        """Predicts each clip; an ensemble adds the logits of its members.

        Args:
            clips: one clip, joints [T, M, V, C] or [T, V, C], or the path of a file, whose joints
                are mapped to the model's as on the command line; or a list of these. C is as in
                the training set (`reading.channels`); 3D joints are in metres.
            decoding: how to describe; None gives no sentences.
            batch_size: clips at a time; None chooses.
            layout: layout of the clips' joints, e.g. "coco17", if not the model's; mapped by name.

        Returns:
            A `Prediction` for one clip, or a list of them for a list.

        Raises:
            UserError: a clip that does not fit the skeleton, a file that cannot be read, or no
                language model to describe with.
        """
        alone, clips = self._checked(clips, layout)
        if not clips:
            return []
        outputs = [list(m.batches(m.forward, clips, batch_size)) for m in self.members]
        sums = sum(np.concatenate([logits for logits, _ in found]) for found in outputs)  # [N, C]
        texts = itertools.repeat(None)
        if decoding is not None:
            said = (describe(self.language, prefix, decoding) for _, prefix in outputs[0])
            texts = itertools.chain.from_iterable(said)
        # Padding is only at the end of the last batch.
        rows = zip(clips, softmax(sums, axis=1), texts, strict=False)
        found = [self._prediction(*row) for row in rows]
        return found[0] if alone else found

    def predict_video(
        self, path: str | Path, pose: Pose | None = None, decoding: Decoding | None = None
    ) -> Prediction:
        """Predicts a video as a whole.

        Args:
            pose: the pose estimator, e.g. from `pose.estimators.open_pose`.
            decoding: as in `predict`.

        Raises:
            UserError: as `open_pose` and `predict`, or the video is damaged or shows nobody.
        """
        try:
            poses = estimate(Path(path), pose or open_pose())
            recording = recording_of(poses, coordinates_of(self.reading.channels))
            return self.predict(clip_of(recording, self.graph, self.reading), decoding)
        except ValueError as error:
            raise UserError(f"{path}: {error}") from None

    def features(self, clips: np.ndarray | Sequence, batch_size: int | None = None) -> np.ndarray:
        """The classifier's input for each clip: the pooled feature s of eq. 11, float32 [N, D].

        For an ensemble, the features of its members are concatenated.

        Args and errors as in `predict`.
        """
        _, clips = self._checked(clips)
        if not clips:
            raise UserError("no clips: give at least one")
        parts = [np.concatenate([*m.batches(m.encode, clips, batch_size)]) for m in self.members]
        return np.concatenate(parts, axis=1)[: len(clips)]

    def _checked(
        self, clips: np.ndarray | Sequence, layout: str = ""
    ) -> tuple[bool, list[np.ndarray]]:
        """Whether it is a single clip, and all clips as float32 [T, M, V, C]."""
        reading = dataclasses.replace(self.reading, layout=layout)
        if isinstance(clips, str | Path):
            alone = True
        elif hasattr(clips, "ndim"):
            alone = clips.ndim < 5
        elif isinstance(clips, Iterable) and not isinstance(clips, Mapping | bytes):
            clips = list(clips)
            alone = _depth(clips) == 3  # frames [V, 3]
        else:
            raise UserError(
                f"{type(clips).__name__} is not a clip: give an array, a path, or a list of these"
            )
        checked = []
        for number, clip in enumerate([clips] if alone else clips):
            is_path = isinstance(clip, str | Path)
            read = read_joints if is_path else check_clip
            try:
                clip = Path(clip).expanduser() if is_path else clip
                checked.append(read(clip, self.graph, self.compat, reading))
            except ValueError as error:
                where = clip if is_path and str(clip) not in str(error) else f"clip {number}"
                raise UserError(f"{where}: {error}") from None
        return alone, checked

    def _prediction(self, clip: np.ndarray, shares: np.ndarray, text: str | None) -> Prediction:
        order = np.argsort(-shares, kind="stable")
        coordinates = clip[..., : coordinates_of(self.reading.channels)]
        probabilities = {self.classes[label]: float(shares[label]) for label in order}
        return Prediction(
            name=self.classes[order[0]],
            probabilities=probabilities,
            description=text,
            frames=len(clip),
            persons=clip.shape[1],
            persons_used=max(min(clip.shape[1], m.feed.num_persons) for m in self.members),
            size=skeleton_size(coordinates),
            coordinates=coordinate_range(coordinates),
            notes=tuple(dict.fromkeys(note for m in self.members for note in m.notes(clip))),
        )


class Ensemble(Predictor):
    """Several models with the same classes, each with its own stream and input settings.

    Raises:
        UserError: the members differ in classes, skeleton or how clips are read.
    """

    def __init__(self, members: Sequence[Predictor]):
        self.members, first = tuple(members), members[0]
        for name in ("classes", "graph", "compat", "reading"):
            setattr(self, name, getattr(first, name))
            for other in self.members:
                if getattr(other, name) != getattr(first, name):
                    raise UserError(
                        f"{other.folder} and {first.folder} differ in their {name}: an ensemble "
                        "needs models of one dataset"
                    )

    @property
    def language(self) -> Language:
        raise UserError("an ensemble cannot describe clips: use one model or omit --describe")


def _depth(value: object) -> int:
    """The number of axes of nested lists and arrays, which may be irregular."""
    depth = 0
    while isinstance(value, list | tuple) and value:
        value, depth = value[0], depth + 1
    return depth + getattr(value, "ndim", 0)


def usual_batch(clips: int, most: int = BATCH_SIZE) -> int:
    """Batch size for so many clips: a power of two, so that only few sizes are compiled."""
    return min(most, 1 << (clips - 1).bit_length())
