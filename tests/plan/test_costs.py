"""Costs read from compiled programs: XLA's own count, and known ones that it leaves out."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from hocslm_jax import sharding
from hocslm_jax.plan import hlo
from hocslm_jax.plan.costs import read_costs

DEVICES, LAYERS, ROWS, WIDTH = 4, 3, 512, 64
LAYER = 4 * WIDTH * WIDTH  # bytes


@pytest.fixture(scope="module")
def layers():
    """A scan over layers whose weights are split over the devices that share the rows."""
    mesh = sharding.make_mesh(DEVICES, 1, jax.devices()[:DEVICES])

    def loss(x, weights):
        return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, weights)[0].sum()

    x = jax.ShapeDtypeStruct((ROWS, WIDTH), jnp.float32, sharding=NamedSharding(mesh, P("data")))
    split = NamedSharding(mesh, P(None, None, "data"))
    weights = jax.ShapeDtypeStruct((LAYERS, WIDTH, WIDTH), jnp.float32, sharding=split)
    return jax.jit(loss).lower(x, weights).compile()


def test_a_loop_counts_as_often_as_it_runs(layers):
    costs = read_costs(layers.as_text(), DEVICES)
    assert costs.matrix_flops == 2 * ROWS / DEVICES * WIDTH * WIDTH * LAYERS
    assert costs.unknown_loops == 0


def test_the_bytes_of_collectives_are_the_weights(layers):
    costs = read_costs(layers.as_text(), DEVICES)
    gathered = costs.collectives["all-gather"]
    assert (gathered.count, gathered.bytes) == (LAYERS, LAYERS * LAYER)
    assert gathered.in_loops == gathered.bytes
    assert gathered.sent == gathered.bytes * (DEVICES - 1) / DEVICES
    reduced = costs.collectives["all-reduce"]  # the sum over the rows, once
    assert (reduced.bytes, reduced.in_loops) == (4, 0)
    assert reduced.sent == 2 * 4 * (DEVICES - 1) / DEVICES


def test_memory_traffic_counts_slices(layers):
    costs = read_costs(layers.as_text(), DEVICES)
    activations = 4 * ROWS / DEVICES * WIDTH
    # Each layer reads its gathered weights and reads and writes the activations, a few times.
    least = LAYERS * (LAYER + 2 * activations)
    assert least <= costs.hbm_bytes <= 8 * least


SLICED = """
%fused (p0: s32[], p1: f32[6,8]) -> f32[1,8] {
  %p0 = s32[] parameter(0)
  %p1 = f32[6,8]{1,0} parameter(1)
  %zero = s32[] constant(0)
  ROOT %slice = f32[1,8]{1,0} dynamic-slice(%p1, %p0, %zero), dynamic_slice_sizes={1,8}
}

ENTRY %main (a: s32[], b: f32[6,8]) -> f32[1,8] {
  %a = s32[] parameter(0)
  %b = f32[6,8]{1,0} parameter(1)
"""
AT_ONCE = "  ROOT %made = f32[1,8]{1,0} fusion(%a, %b), kind=kLoop, calls=%fused\n}\n"
BESIDE_OTHERS = """\
  %start = ((s32[], f32[6,8]{1,0}), f32[1,8]{1,0}, u32[]) fusion-start(%a, %b), calls=%fused
  ROOT %made = f32[1,8]{1,0} fusion-done(%start)
}
"""


MOVES = """
%move (whole: f32[6,8]) -> f32[6,8] {
  %whole = f32[6,8]{1,0} parameter(0)
  ROOT %copied = f32[6,8]{0,1} copy(%whole)
}
"""


def test_slice_after_a_layout_change_in_a_fusion_counts_alone():
    nested = "  %moved = f32[6,8]{0,1} fusion(%p1), kind=kLoop, calls=%move\n"
    for moving in (nested, "  %moved = f32[6,8]{0,1} copy(%p1)\n"):
        text = MOVES + SLICED.replace("  ROOT %slice", moving + "  ROOT %slice")
        text = text.replace("dynamic-slice(%p1,", "dynamic-slice(%moved,")
        assert read_costs(text + AT_ONCE, 1).hbm_bytes == 4 + 2 * 32


def test_parallel_fusion_counts_as_fusion():
    one, other = read_costs(SLICED + AT_ONCE, 1), read_costs(SLICED + BESIDE_OTHERS, 1)
    assert one.hbm_bytes == 4 + 2 * 32  # the index; the slice is read and written
    assert other.hbm_bytes == one.hbm_bytes + 4  # its context
    assert one.kernels == other.kernels == 1


@pytest.mark.parametrize("stride", [1, 2])
def test_convolutions_count_as_xla_counts_them(stride):
    def convolve(x, kernel):
        return jax.lax.conv_general_dilated(x, kernel, (stride,), [(2, 1)], rhs_dilation=(2,))

    compiled = jax.jit(convolve).lower(jnp.zeros((2, 3, 16)), jnp.zeros((5, 3, 4))).compile()
    found = read_costs(compiled.as_text(), 1).matrix_flops
    assert found == pytest.approx(compiled.cost_analysis()["flops"], rel=1e-6)


# As a TPU's compiler writes programs: a batched product as a convolution, a loop without its
# length, one asynchronous collective in two pieces, arrays in fast memory, scattered reductions.
TPU = """\
HloModule jit_step, is_scheduled=true, num_partitions=4

%all-reduce-scatter.1 (input: bf16[8,4]) -> bf16[2,4] {
  %input = bf16[8,4]{1,0:T(8,128)(2,1)} parameter(0)
  %all-reduce.2 = bf16[8,4]{1,0} all-reduce(%input), channel_id=7, replica_groups={{0,1,2,3}}
  %constant.9 = s32[]{:T(128)} constant(0)
  ROOT %dynamic-slice.2 = bf16[2,4]{1,0} dynamic-slice(%all-reduce.2, %constant.9, %constant.9)
}

%start (param: bf16[2,4]) -> (bf16[2,4], bf16[8,4]) {
  %param = bf16[2,4]{1,0} parameter(0)
  %all-gather.1 = bf16[8,4]{1,0:S(1)} all-gather(%param), channel_id=3, replica_groups=[1,4]<=[4]
  ROOT %custom-call = (bf16[2,4]{1,0}, bf16[8,4]{1,0:S(1)}) custom-call(%all-gather.1)
}

%finish (param.1: bf16[8,4]) -> bf16[8,4] {
  %param.1 = bf16[8,4]{1,0} parameter(0)
  ROOT %all-gather.2 = bf16[8,4]{1,0:S(1)} all-gather(%param.1), channel_id=3, \
replica_groups=[1,4]<=[4]
}

%body (state: (s32[], bf16[2,4], s32[])) -> (s32[], bf16[2,4], s32[]) {
  %state = (s32[]{:T(128)}, bf16[2,4]{1,0}, s32[]{:T(128)}) parameter(0)
  %index = s32[]{:T(128)} get-tuple-element(%state), index=0
  %piece = bf16[2,4]{1,0} get-tuple-element(%state), index=1
  %limit = s32[]{:T(128)} get-tuple-element(%state), index=2
  %begun = (bf16[2,4]{1,0}, bf16[8,4]{1,0:S(1)}) fusion(%piece), kind=kCustom, calls=%start
  %moving = bf16[8,4]{1,0:S(1)} get-tuple-element(%begun), index=1
  %whole = bf16[8,4]{1,0:S(1)} fusion(%moving), kind=kCustom, calls=%finish
  %part = bf16[2,4]{1,0} fusion(%whole), kind=kCustom, calls=%all-reduce-scatter.1, \
backend_config={"window_config":{"estimated_cycles":"100"}}
  ROOT %next = (s32[], bf16[2,4], s32[]) tuple(%index, %part, %limit)
}

%condition (state.1: (s32[], bf16[2,4], s32[])) -> pred[] {
  %state.1 = (s32[], bf16[2,4]{1,0}, s32[]) parameter(0)
  %index.1 = s32[] get-tuple-element(%state.1), index=0
  %limit.1 = s32[] get-tuple-element(%state.1), index=2
  ROOT %less = pred[] compare(%index.1, %limit.1), direction=LT
}

ENTRY %main (a: bf16[4,24,2], b: bf16[4,2,24], x: bf16[2,4]) -> bf16[2,4] {
  %a = f32[8,4,24,2,24]{4,3,2,1,0} parameter(0)
  %b = f32[8,4,24,24]{3,2,1,0} parameter(1)
  %x = bf16[2,4]{1,0} parameter(2)
  %product = f32[8,4,16,25,1]{3,2,4,1,0} convolution(%left, %right), \
window={size=8x4x1 stride=7x3x1 lhs_dilate=8x4x1}, dim_labels=01bf2_01oi2->01bf2
  %left = f32[8,4,16,6,1]{3,2,1,0,4} bitcast(%a)
  %right = f32[8,4,25,6,1]{3,2,1,0,4} bitcast(%b)
  %zero = s32[]{:T(128)} constant(0)
  %five = s32[]{:T(128)} constant(5)
  %limit.2 = s32[]{:T(128)} copy(%five)
  %first = (s32[], bf16[2,4]{1,0}, s32[]) tuple(%zero, %x, %limit.2)
  %loop = (s32[], bf16[2,4]{1,0}, s32[]) while(%first), condition=%condition, body=%body
  ROOT %last = bf16[2,4]{1,0} get-tuple-element(%loop), index=1
}
"""


def test_batched_product_as_convolution_counts_as_product():
    costs = read_costs(TPU, 4)
    assert costs.matrix_flops == 2 * (8 * 4) * 16 * 25 * 6


def test_a_loop_takes_its_length_from_its_state():
    program = hlo.parse(TPU)
    entry = program.computations[program.entry]
    assert hlo.passes(program, entry, entry["loop"]) == 5
    assert read_costs(TPU, 4).cycles == 500


def test_loop_of_unknown_length_counts_once_with_a_note():
    text = TPU.replace("direction=LT", "direction=NE")
    costs = read_costs(text, 4)
    assert (costs.unknown_loops, costs.cycles) == (1, 100)


def test_parts_of_a_collective_count_once():
    collectives = read_costs(TPU, 4).collectives
    assert set(collectives) == {"all-gather", "reduce-scatter"}
    gathered, scattered = collectives["all-gather"], collectives["reduce-scatter"]
    assert (gathered.count, gathered.bytes) == (5, 5 * 2 * 8 * 4)
    assert (scattered.count, scattered.sent) == (5, 5 * 2 * 8 * 4 * 3 / 4)


def test_fast_memory_is_no_traffic():
    program = hlo.parse(TPU)
    begun = program.computations["body"]["begun"]
    assert [array.fast for array in begun.arrays] == [False, True]
    assert begun.arrays[0].nbytes == 2 * 2 * 4


GPU = """\
HloModule jit_step, is_scheduled=true

ENTRY %main (x: f32[64,16], w: f32[16,32]) -> f32[64,32] {
  %x = f32[64,16]{1,0} parameter(0)
  %w = f32[16,32]{1,0} parameter(1)
  %gemm = (f32[64,32]{1,0}, s8[4194304]{0}) custom-call(%x, %w), \
custom_call_target="__cublas$gemm", backend_config={"gemm_backend_config":{"dot_dimension_numbers":\
{"lhs_contracting_dimensions":["1"],"rhs_contracting_dimensions":["0"]}}}
  ROOT %out = f32[64,32]{1,0} get-tuple-element(%gemm), index=0
}
"""


def test_a_library_s_product_on_a_gpu_counts():
    assert read_costs(GPU, 1).matrix_flops == 2 * 64 * 32 * 16
