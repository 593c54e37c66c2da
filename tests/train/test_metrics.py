"""Reports: lines after the restored step are dropped, totals survive a checkpoint."""

import dataclasses
import json

import pytest

from hocslm_jax.train.metrics import MetricWriter, Totals, means


def steps(workdir):
    return [
        json.loads(line)["step"] for line in (workdir / "metrics.jsonl").read_text().splitlines()
    ]


def test_writer_drops_lines_that_a_resumed_run_repeats(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(f'{{"step": {step}}}\n' for step in (2, 4, 6, 8)) + '{"step": 1')
    writer = MetricWriter(tmp_path, 5)
    writer.write(6, {"loss": 0.5})
    assert steps(tmp_path) == [2, 4, 6]  # on the disk before close
    writer.close()


def test_damaged_lines_are_dropped_when_a_run_resumes(tmp_path):
    good = b'{"step": 2}\n'
    damaged = (
        b"null\n",
        b'{"step": "x"}\n',
        b"[" * 5000 + b"\n",
        b"\xff\xfe\x00\n",
        b'{"loss": 1}\n',
    )
    (tmp_path / "metrics.jsonl").write_bytes(good.join(damaged) + good)
    MetricWriter(tmp_path, 5).close()
    assert steps(tmp_path) == [2] * len(damaged)


def test_totals_survive_json_exactly():
    totals = Totals()
    totals.add({"loss": (0.1, 3.0), "top1": (2.0, 3.0)})
    totals.add({"loss": (0.2, 1.0), "top1": (1.0, 1.0)})
    totals.add_time(3.0, 2)
    again = Totals(**json.loads(json.dumps(dataclasses.asdict(totals))))
    assert again == totals
    assert means(again.window) == {"loss": pytest.approx(0.3 / 4), "top1": 0.75, "step_time_s": 1.5}
