"""Conversions that change no number, against arithmetic of Python's numbers."""

import math
import struct

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import swd_jax
from swd_jax.io import _exact_cast

INTEGERS = [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]
SMALL_INTEGERS = {"int4": range(-8, 8), "uint4": range(16)}
# Of all these types every number is known: there are at most 2**16 patterns of bits.
SMALL_REALS = [
    *("float16", "bfloat16", "float8_e3m4", "float8_e4m3", "float8_e4m3b11fnuz"),
    *("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz"),
    *("float8_e8m0fnu",),
]
TYPES = [
    *("bool", *INTEGERS, *SMALL_INTEGERS, *SMALL_REALS, "float32", "float64"),
    *("complex64", "complex128"),
]
NUMBERS = [
    *(0, 1, -1, 2, 3, -8, -9, 7, 15, 16, 17, 127, 128, -128, -129, 240, 255, 256, 257),
    *(448, 480, 512, 32767, 65504, 65535, 65536, -(2**31), 2**24, 2**24 + 1),
    *(2**31 - 1, 2**31, 2**32 - 1, 2**53, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1),
    *(-(2**63), 0.5, -1.5, 7.5, 0.1, float(np.float32(0.1)), 1e300, -3e38),
    *(2.0**-9, 2.0**-17, 2.0**-24, 2.0**-127, 2.0**-149, 2.0**-1074),
    *(math.nan, math.inf, -math.inf, 1j, complex(math.nan, 1), complex(2, math.nan)),
]


def float32_has(number):
    try:
        return struct.unpack("f", struct.pack("f", number))[0] == number
    except OverflowError:
        return False


def known_numbers(name):
    """The numbers of a type, from all its bits; None stands for NaN."""
    dtype = jnp.dtype(name)
    bits = np.arange(2 ** (8 * dtype.itemsize)).astype(f"u{dtype.itemsize}")
    with np.errstate(invalid="ignore"):  # signalling NaN
        values = bits.view(dtype).astype(np.float64).tolist()
    return {None if math.isnan(value) else value for value in values}


REALS = {name: known_numbers(name) for name in SMALL_REALS}


def represents(name, number):
    """Whether a type has a number. Python compares int with float exactly."""
    if name.startswith("complex"):
        part = {"complex64": "float32", "complex128": "float64"}[name]
        parts = complex(number) if isinstance(number, complex) else number
        return represents(part, parts.real) and represents(part, parts.imag)
    if isinstance(number, complex):
        return number.imag == 0 and represents(name, number.real)
    if name in REALS:
        return (None if math.isnan(number) else number) in REALS[name]
    if name in ("float32", "float64"):
        if not math.isfinite(number):
            return True
        has = float32_has if name == "float32" else lambda number: True
        try:
            return float(number) == number and has(float(number))
        except OverflowError:
            return False
    if not math.isfinite(number) or number != int(number):
        return False
    if name == "bool":
        return number in (0, 1)
    if name in SMALL_INTEGERS:
        return number in SMALL_INTEGERS[name]
    limits = np.iinfo(name)
    return int(limits.min) <= number <= int(limits.max)


def array_of(name, number):
    """One number as an array; a type has it, so that no conversion rounds."""
    if name in REALS or name in SMALL_INTEGERS:
        return np.array([number], np.float64).astype(jnp.dtype(name))
    return np.array([number], name)


def is_same(array, number):
    found = array.tolist()[0]
    if isinstance(number, complex) or isinstance(found, complex):
        parts = [(found.real, number.real), (found.imag, number.imag)]
        return all(a == b or (math.isnan(a) and math.isnan(b)) for a, b in parts)
    # Of ml_dtypes' types `tolist` gives their scalars.
    found = found if isinstance(found, int) else float(found)
    return found == number or (math.isnan(found) and math.isnan(number))


@pytest.mark.parametrize("source", TYPES)
def test_every_type_from_every_other(source):
    for number in (each for each in NUMBERS if represents(source, each)):
        array = array_of(source, number)
        assert is_same(array, number), number
        for wanted in TYPES:
            found = _exact_cast.cast(array, jnp.dtype(wanted))
            assert (found is not None) == represents(wanted, number), (wanted, number)
            if found is not None:
                assert found.dtype == jnp.dtype(wanted)
                assert is_same(found, number), (wanted, number)


@pytest.mark.parametrize("source", TYPES)
def test_files_of_every_type_are_loaded_as_every_other_or_refused(source, tmp_path):
    file = tmp_path / "model.npz"
    with jax.enable_x64(True):
        for number in (each for each in (1, -1.5, 200) if represents(source, each)):
            # As they are, and without their zeros.
            zeros = 400 if represents(source, 0) else 0
            array = np.concatenate(
                [array_of(source, number)] + zeros * [array_of(source, 0)]
            )
            swd_jax.io.save_sparse(file, {"w": array})
            for wanted in TYPES:
                like = {"w": jax.ShapeDtypeStruct(array.shape, jnp.dtype(wanted))}
                if represents(wanted, number) and (zeros == 0 or represents(wanted, 0)):
                    loaded = swd_jax.io.load_sparse(file, like)["w"]
                    assert loaded.dtype == like["w"].dtype
                    assert is_same(np.asarray(loaded), number)
                    assert not np.asarray(loaded)[1:].any()
                else:
                    with pytest.raises(
                        ValueError, match=f"model.npz' has {source} num"
                    ):
                        swd_jax.io.load_sparse(file, like)
