"""The counting of bytes, on programs whose traffic is known by hand."""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from traffic import Bytes, bytes_of, traffic

SIDE = 256
ARRAY = 4 * SIDE * SIDE
X = jax.ShapeDtypeStruct((SIDE, SIDE), jnp.float32)


def compiled(function, *arguments):
    return traffic(jax.jit(function).lower(*arguments).compile().as_text())


def in_arrays(moved):
    """Bytes in arrays of SIDE x SIDE, without scalars."""
    return round(moved.read / ARRAY, 2), round(moved.written / ARRAY, 2)


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        ("f32[]", 4),
        ("bf16[3,5]{1,0}", 30),
        ("pred[10]{0}", 10),
        ("(f32[2,2]{1,0}, s32[])", 20),
        # Tiles of 8 x 128: a narrow last axis takes 128.
        ("f32[16,4]{1,0:T(8,128)}", 4 * 16 * 128),
        ("f32[9,129]{1,0:T(8,128)}", 4 * 16 * 256),
        # Stored the other way round: 4 x 16, of which the 16 is padded.
        ("f32[16,4]{0,1:T(8,128)}", 4 * 8 * 128),
        ("bf16[16,128]{1,0:T(8,128)(2,1)}", 2 * 16 * 128),
        ("f32[3,8,128]{2,1,0:T(8,128)}", 4 * 3 * 8 * 128),
        ("f32[200]{0:T(128)}", 4 * 256),
        # In vector memory.
        ("f32[8,128]{1,0:T(8,128)S(1)}", 0),
    ],
)
def test_the_size_of_an_array_is_that_of_its_tiles(array, expected):
    assert bytes_of(array) == expected


class TestCompiledHere:
    """By XLA for the CPU, with the fusion of element-wise operations."""

    def test_a_fused_expression_reads_each_operand_once(self):
        moved = compiled(lambda x, y: jnp.sin(x) * y + x * x, X, X)
        assert in_arrays(moved.outside) == (2, 1)
        assert moved.loops == []

    def test_an_argument_that_is_returned_is_not_moved(self):
        function = jax.jit(lambda x, y: (x, y + 1), donate_argnums=(0, 1))
        moved = traffic(function.lower(X, X).compile().as_text())
        assert in_arrays(moved.outside) == (1, 1)

    @pytest.mark.parametrize("is_known", [False, True])
    def test_a_loop_counts_one_iteration_unless_their_number_is_known(self, is_known):
        def function(x):
            def body(carry):
                i, total = carry
                return i + 1, total + jnp.max(x * total, axis=1).sum() / 1e9

            def goes_on(carry):
                return carry[0] < 7 if is_known else carry[1] < 7

            return jax.lax.while_loop(goes_on, body, (0, 1.0))

        moved = compiled(function, X)
        if is_known:
            # With the maxima of the rows.
            assert in_arrays(moved.outside) == pytest.approx((7, 0), abs=0.05)
            assert moved.loops == []
            return
        assert in_arrays(moved.outside) == (0, 0)
        assert len(moved.loops) == 1
        assert in_arrays(moved.loops[0]) == (1, 0)

    def test_of_a_conditional_the_branch_that_moves_more_counts(self):
        def function(flag, x):
            return jax.lax.cond(flag, lambda: x * 2 + 1, lambda: jnp.zeros_like(x))

        moved = compiled(function, jax.ShapeDtypeStruct((), bool), X)
        assert in_arrays(moved.outside) == (1, 1)

    def test_a_slice_reads_what_it_returns(self):
        def function(x, i):
            return jax.lax.dynamic_slice(x, (i, 0), (SIDE // 4, SIDE)) * 2

        moved = compiled(function, X, jax.ShapeDtypeStruct((), jnp.int32))
        assert in_arrays(moved.outside) == (0.25, 0.25)


HEAD = "HloModule step, is_scheduled=true\n\n"


def test_a_copy_to_vector_memory_only_reads():
    text = f"""{HEAD}
ENTRY %main (p: f32[8,128]) -> f32[8,128] {{
  %p = f32[8,128]{{1,0:T(8,128)}} parameter(0)
  %start = (f32[8,128]{{1,0:T(8,128)S(1)}}, f32[8,128]{{1,0:T(8,128)}}, u32[]{{:S(2)}}) copy-start(%p)
  %done = f32[8,128]{{1,0:T(8,128)S(1)}} copy-done(%start)
  %half = ((f32[8,128]{{1,0:T(8,128)}}), f32[4,128]{{1,0:T(4,128)S(1)}}, s32[]{{:S(2)}}) slice-start(%p), slice={{[0:4], [0:128]}}
  %part = f32[4,128]{{1,0:T(4,128)S(1)}} slice-done(%half)
  %sum = f32[8,128]{{1,0:T(8,128)}} custom-call(%done, %part), custom_call_target="tpu_custom_call"
  %back = (f32[8,128]{{1,0:T(8,128)}}, f32[8,128]{{1,0:T(8,128)S(1)}}, u32[]{{:S(2)}}) copy-start(%done)
  ROOT %out = f32[8,128]{{1,0:T(8,128)}} copy-done(%back)
}}
"""  # noqa: E501
    size = 4 * 8 * 128
    assert traffic(text).outside == Bytes(size + size // 2, 2 * size)


def test_an_update_in_place_writes_what_it_replaces():
    text = f"""{HEAD}
%fused (a: f32[100,10], b: f32[1,10], i: s32[]) -> f32[100,10] {{
  %a = f32[100,10]{{1,0}} parameter(0)
  %b = f32[1,10]{{1,0}} parameter(1)
  %i = s32[] parameter(2)
  %zero = s32[] constant(0)
  ROOT %new = f32[100,10]{{1,0}} dynamic-update-slice(%a, %b, %i, %zero)
}}

ENTRY %main (a: f32[100,10], b: f32[1,10], i: s32[]) -> f32[100,10] {{
  %a.1 = f32[100,10]{{1,0}} parameter(0)
  %b.1 = f32[1,10]{{1,0}} parameter(1)
  %i.1 = s32[] parameter(2)
  ROOT %out = f32[100,10]{{1,0}} fusion(%a.1, %b.1, %i.1), kind=kLoop, calls=%fused
}}
"""
    assert traffic(text).outside == Bytes(40 + 4, 40)


def test_collectives_read_and_write():
    text = f"""{HEAD}
%add (x: f32[], y: f32[]) -> f32[] {{
  %x = f32[] parameter(0)
  %y = f32[] parameter(1)
  ROOT %sum = f32[] add(%x, %y)
}}

ENTRY %main (a: f32[100]) -> f32[400] {{
  %a = f32[100]{{0}} parameter(0)
  %sum = f32[100]{{0}} all-reduce(%a), replica_groups={{}}, to_apply=%add
  %start = (f32[100]{{0}}, f32[400]{{0}}) all-gather-start(%sum), dimensions={{0}}
  ROOT %out = f32[400]{{0}} all-gather-done(%start)
}}
"""
    assert traffic(text).outside == Bytes(800, 400 + 1600)


def test_a_text_without_a_program_is_an_error():
    with pytest.raises(ValueError, match="no ENTRY"):
        traffic("HloModule step")
