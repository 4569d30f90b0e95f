"""The dtypes of the table: those of the two matrices and of their gradients."""

from typing import NamedTuple


class Dtypes(NamedTuple):
    """The dtypes of the first leaf and of the others, and that of all gradients."""

    first: str
    others: str
    gradients: str | None = None
    """None: those of the leaves."""


def same(dtype: str) -> Dtypes:
    return Dtypes(dtype, dtype)


DTYPES = {
    **{
        dtype: same(dtype)
        for dtype in (
            "float32",
            "bfloat16",
            "float16",
            "float64",
            "float8_e4m3fn",
            "float8_e5m2",
            "float8_e4m3b11fnuz",
        )
    },
    "bfloat16 and float32": Dtypes("bfloat16", "float32"),
    "float16 and bfloat16": Dtypes("float16", "bfloat16"),
    "float64 and bfloat16": Dtypes("float64", "bfloat16"),
    "float8_e4m3fn and float32": Dtypes("float8_e4m3fn", "float32"),
    "bfloat16, gradients in float32": Dtypes("bfloat16", "bfloat16", "float32"),
    "float32, gradients in bfloat16": Dtypes("float32", "float32", "bfloat16"),
    "float32, gradients in float16": Dtypes("float32", "float32", "float16"),
}
