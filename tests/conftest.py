"""Eight CPU devices, one compilation cache and the path of the reference data, for every test."""

import os
import pathlib
from importlib.metadata import version

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Compiling takes most of the tests' time, and their programs are small: leave them unoptimised, and
# keep all of them, for other tests and for the processes that tests start.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1"
    # The old emitters of loops compile a network in half the time; later versions lack the flag.
    + (" --xla_cpu_use_fusion_emitters=false" if version("jaxlib").startswith("0.10.") else ""),
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

import jax
import pytest
from absl import flags

ROOT = pathlib.Path(__file__).resolve().parents[1]

jax.config.update("jax_num_cpu_devices", 8)
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(ROOT / ".cache" / "xla-tests")
    jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
flags.FLAGS.mark_as_parsed()  # Grain reads absl flags


def pytest_collection_modifyitems(items):
    """Long files first and short ones last, so that several workers end at the same time."""
    items.sort(key=lambda item: ("train" not in item.path.parts, "data" in item.path.parts))


@pytest.fixture(scope="session")
def shared() -> pathlib.Path:
    """Folder with the reference data and golden files; HOCSLM_SHARED, else ../shared."""
    folder = pathlib.Path(os.environ.get("HOCSLM_SHARED", ROOT.parent / "shared"))
    if not (folder / "golden").is_dir():
        if os.environ.get("HOCSLM_REQUIRE_SHARED") == "1":
            pytest.fail(f"the reference data is required here but {folder} has none")
        pytest.skip(f"no reference data at {folder}; set HOCSLM_SHARED to run this comparison")
    return folder
