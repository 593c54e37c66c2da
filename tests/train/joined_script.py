"""One of two processes that try, without a model, all that they can do as one: `hosts.py`.

The argument is a folder for a dataset. Writes what it finds to FOLDER<number of the process>.json;
then process 1 meets a mistake of the user while process 0 waits for it.
"""

import contextlib
import io
import json
import os
import signal
import sys
import time
from pathlib import Path

import jax
import numpy as np
import tiny_run
from jax.experimental import multihost_utils

from hocslm_jax import hosts, sharding
from hocslm_jax.errors import UserError
from hocslm_jax.train import environment, setup, signals
from hocslm_jax.train.identity import checksum

SILENCE_S = 4


def refusal(act, *args):
    try:
        return act(*args)
    except UserError as error:
        return str(error)


def slow_report():
    time.sleep(1.5 * SILENCE_S)
    return [number]


def mistake():
    raise UserError("process 0 found no such file")


def stop_together():
    """The call at which the run stops; process 1 alone gets Ctrl-C, before its third call."""
    with signals.catch_signals() as stop:
        for call in range(50):
            if number == 1 and call == 2:
                os.kill(os.getpid(), signal.SIGINT)
            if stop.ask():
                return [call, stop.status]
            multihost_utils.process_allgather(np.ones(1))  # the step that all work on
    return None


def weights(other):
    """A replicated array, of which process 1 holds `other` values."""
    everywhere = sharding.replicated(sharding.make_mesh())
    mine = np.arange(6, dtype=np.float32) + (other if number == 1 else 0)
    copies = [jax.device_put(mine, device) for device in jax.local_devices()]
    return jax.make_array_from_single_device_arrays((6,), everywhere, copies)


def check_weights(other):
    hosts.check_same("the weights", lambda: {"checksum": checksum({"w": weights(other)})})


def prepared(folder):
    """The clips of a dataset that process 0 has to prepare first, and what this process says."""
    changes = {"data.data_dir": folder, "data.dataset": "quickstart", "data.auto_prepare": True}
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        store = setup.open_data(tiny_run.make_config(changes).data)
    return [len(store), said.getvalue()]


if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")
    environment.SILENCE_S = SILENCE_S
    environment.join_processes()
    number = jax.process_index()
    found = {
        "slow": hosts.on_first(slow_report),
        "within": hosts.on_first(lambda: [hosts.on_first(lambda: 1), hosts.any_process(True)]),
        "mistake": refusal(hosts.on_first, mistake),
        "any": [hosts.any_process(number == 1), hosts.any_process(False)],
        "same": refusal(hosts.check_same, "settings", lambda: {"a": 1}),
        "other": refusal(hosts.check_same, "settings", lambda: {"a": 1, "optim.lr": number}),
        "stop": stop_together(),
        "prepared": prepared(sys.argv[1]),
        "weights": [refusal(check_weights, 0), refusal(check_weights, 1e-7)],
    }
    Path(f"{sys.argv[1]}{number}.json").write_text(json.dumps(found))
    try:
        if number == 1:
            raise UserError("record 7 is damaged")
        multihost_utils.sync_global_devices("a step")
    except UserError as error:
        hosts.end_all(error)
        print(f"error: {error}", flush=True)
        sys.exit(2)
