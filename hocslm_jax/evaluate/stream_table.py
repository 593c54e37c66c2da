"""Streams and their ensembles, as in the paper's Table 7: one stream, 2, 4 and 6 of them.

In: members of known streams, of one or more seeds. Out: a row for each stream and each ensemble
that the members allow, with one count for each seed.
"""

from collections.abc import Sequence

from hocslm_jax.data.streams import PAPER_STREAMS
from hocslm_jax.errors import UserError
from hocslm_jax.evaluate.ensemble_weights import fuse, preset_weights
from hocslm_jax.evaluate.score_files import Member

ENSEMBLES = {
    "2 streams": ("joint", "bone"),
    "4 streams": ("joint", "bone", "joint_motion", "bone_motion"),
    "6 streams": PAPER_STREAMS,
}


def stream_table(
    members: Sequence[Member], preset: str = "equal", space: str = "logits"
) -> list[dict]:
    """Rows {"row", "streams", "seeds", "correct", "total"}, the last two by seed.

    With several complete sets of six there is also a row of all of them together, its seeds None.

    Raises:
        UserError: a member of unknown stream, or a stream twice with the same seed.
    """
    seeds = members_by_seed(members)
    rows = [_row(name, (name,), seeds, preset, space) for name in PAPER_STREAMS]
    rows += [_row(name, streams, seeds, preset, space) for name, streams in ENSEMBLES.items()]
    complete = [own for own in seeds.values() if set(PAPER_STREAMS) <= set(own)]
    if len(complete) > 1:
        every = [own[stream] for own in complete for stream in PAPER_STREAMS]
        scores = fuse(every, preset_weights(preset, every), space)
        name = f"6 streams × {len(complete)} seeds"
        counts = {"seeds": None, "correct": [scores.correct], "total": scores.total}
        rows.append({"row": name, "streams": list(PAPER_STREAMS), **counts})
    return [row for row in rows if row["correct"]]


def members_by_seed(members: Sequence[Member]) -> dict[int, dict[str, Member]]:
    """{seed: {stream: member}}, an unknown seed being 0. Raises UserError as `stream_table`."""
    seeds: dict[int, dict[str, Member]] = {}
    for member in members:
        if member.stream not in PAPER_STREAMS:
            raise UserError(
                f"{member.name} is of {member.stream or 'an unknown stream'}: a table takes "
                f"{', '.join(PAPER_STREAMS)}; write joint={member.name} or the like"
            )
        own = seeds.setdefault(member.seed or 0, {})
        if member.stream in own:
            raise UserError(
                f"{member.name} and {own[member.stream].name} are of one stream and one seed: make "
                "a table of each model by itself"
            )
        own[member.stream] = member
    return dict(sorted(seeds.items()))


def _row(name: str, streams: tuple[str, ...], seeds: dict, preset: str, space: str) -> dict:
    used, counts, total = [], [], 0
    for seed, own in seeds.items():
        if set(streams) <= set(own):
            parts = [own[stream] for stream in streams]
            scores = fuse(parts, preset_weights(preset, parts), space)
            used.append(seed)
            counts.append(scores.correct)
            total = scores.total
    return {"row": name, "streams": list(streams), "seeds": used, "correct": counts, "total": total}
