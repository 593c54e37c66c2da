"""Descriptions of NVIDIA GPUs for XLA's compiler, so that it can compile for absent ones.

In: a name such as `h100`. Out: the text of a `stream_executor.GpuTargetConfigProto`. The figures
are those of OpenXLA's device descriptions (xla/backends/gpu/target_config/specs: a100_sxm_80,
h100_sxm, h200, b200), which were measured on the boards. They lack the RTX 4060, whose figures are
NVIDIA's (its product page, and compute capability 8.9 in the CUDA C++ Programming Guide).
"""

import dataclasses
import textwrap


@dataclasses.dataclass(frozen=True)
class Gpu:
    """One board; the defaults are those of Hopper and Blackwell.

    Attributes:
      name: `device_kind` of the JAX device.
      capability: CUDA compute capability, major and minor.
      cores: streaming multiprocessors.
      memory, memory_rate: bytes, and bytes a second.
      l2: bytes of the cache that all cores share.
      clock: GHz.
      fpus: float32 units of each core.
      shared, shared_optin: bytes of fast memory of a core, and the most that a block may ask for.
      threads: the most threads of a core.
      accelerated: whether instructions specific to this generation (sm_90a, sm_100a) are used.
    """

    name: str
    capability: tuple[int, int]
    cores: int
    memory: int
    memory_rate: int
    l2: int
    clock: float
    fpus: int = 128
    shared: int = 233_472
    shared_optin: int = 232_448
    accelerated: bool = True
    threads: int = 2048


GPUS = {
    "a100": Gpu(
        *("NVIDIA A100-SXM4-80GB", (8, 0), 108, 85_100_068_864, 2_039_040_000_000),
        *(41_943_040, 1.41, 64, 167_936, 166_912, False),
    ),
    "h100": Gpu(
        *("NVIDIA H100 80GB HBM3", (9, 0), 132, 84_942_979_072, 3_352_320_000_000),
        *(52_428_800, 1.98),
    ),
    "h200": Gpu(
        *("NVIDIA H200 141GB HBM3e", (9, 0), 132, 151_397_597_184, 4_800_000_000_000),
        *(52_428_800, 1.98),
    ),
    "b200": Gpu(
        *("NVIDIA B200", (10, 0), 148, 191_514_411_008, 7_672_320_000_000),
        *(132_644_864, 1.965),
    ),
    "rtx4060": Gpu(
        *("NVIDIA GeForce RTX 4060", (8, 9), 24, 8_585_740_288, 272_000_000_000),
        *(25_165_824, 2.46, 128, 102_400, 101_376, False, 1536),
    ),
}


def target_config(gpu: Gpu) -> str:
    """The description that `topologies.get_topology_desc` takes as `target_config`."""
    major, minor = gpu.capability
    extension = "feature_extension: ACCELERATED_FEATURES" if gpu.accelerated else ""
    return textwrap.dedent(f"""\
        gpu_device_info {{
          threads_per_block_limit: 1024
          threads_per_warp: 32
          shared_memory_per_block: 49152
          shared_memory_per_core: {gpu.shared}
          shared_memory_per_block_optin: {gpu.shared_optin}
          threads_per_core_limit: {gpu.threads}
          core_count: {gpu.cores}
          fpus_per_core: {gpu.fpus}
          block_dim_limit_x: 2147483647
          block_dim_limit_y: 65535
          block_dim_limit_z: 65535
          thread_dim_limit_x: 1024
          thread_dim_limit_y: 1024
          thread_dim_limit_z: 64
          memory_bandwidth: {gpu.memory_rate}
          l2_cache_size: {gpu.l2}
          clock_rate_ghz: {gpu.clock}
          device_memory_size: {gpu.memory}
          cuda_compute_capability {{ major: {major} minor: {minor} {extension} }}
          registers_per_core_limit: 65536
          registers_per_block_limit: 65536
          driver_version: "13.0.0"
          runtime_version: "13.0.0"
          compile_time_toolkit_version: "13.0.0"
          dnn_version: "9.10.0"
          name: "{gpu.name}"
        }}
        platform_name: "CUDA"
        dnn_version_info {{ major: 9 minor: 10 }}
        device_description_str: "{gpu.name}"
        """)
