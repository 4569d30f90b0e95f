"""A small transformer that reads characters (Vaswani et al. 2017, arXiv 1706.03762).

Decoder only, with the norm before each layer, as in GPT-2. All its matrices are plain
(inputs, outputs) kernels, so that a structure means the same in each of them.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from models.layers import require_positive


class Attention(nnx.Module):
    """Every character looks at itself and those before it."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs) -> None:
        if width % heads:
            raise ValueError(f"heads must divide the width {width}, not {heads}.")
        self.heads = heads
        self.query = nnx.Linear(width, width, use_bias=False, rngs=rngs)
        self.key = nnx.Linear(width, width, use_bias=False, rngs=rngs)
        self.value = nnx.Linear(width, width, use_bias=False, rngs=rngs)
        self.output = nnx.Linear(width, width, use_bias=False, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        by_head = (*x.shape[:-1], self.heads, -1)
        mixed = jax.nn.dot_product_attention(
            self.query(x).reshape(by_head),
            self.key(x).reshape(by_head),
            self.value(x).reshape(by_head),
            is_causal=True,
        )
        return self.output(mixed.reshape(x.shape))


class Block(nnx.Module):
    """Attention, then a perceptron of four times the width, each added to its input."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs) -> None:
        self.norm1 = nnx.LayerNorm(width, rngs=rngs)
        self.attention = Attention(width, heads, rngs=rngs)
        self.norm2 = nnx.LayerNorm(width, rngs=rngs)
        self.dense1 = nnx.Linear(width, 4 * width, rngs=rngs)
        self.dense2 = nnx.Linear(4 * width, width, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = x + self.attention(self.norm1(x))
        return x + self.dense2(nnx.gelu(self.dense1(self.norm2(x))))


class Transformer(nnx.Module):
    """(texts, characters) to logits of each next one, (texts, characters, vocabulary).

    A text may be shorter than the context, and never longer.
    """

    def __init__(
        self,
        vocabulary: int,
        *,
        context: int = 64,
        width: int = 64,
        depth: int = 2,
        heads: int = 4,
        rngs: nnx.Rngs,
    ) -> None:
        require_positive(
            vocabulary=vocabulary, context=context, width=width, depth=depth
        )
        require_positive(heads=heads)
        self.context = context
        self.characters = nnx.Embed(vocabulary, width, rngs=rngs)
        self.places = nnx.Embed(context, width, rngs=rngs)
        self.blocks = nnx.List([Block(width, heads, rngs=rngs) for _ in range(depth)])
        self.norm = nnx.LayerNorm(width, rngs=rngs)
        self.head = nnx.Linear(width, vocabulary, rngs=rngs)

    def __call__(self, texts: jax.Array) -> jax.Array:
        length = texts.shape[1]
        if length > self.context:
            raise ValueError(
                f"texts have {length} characters, more than the context {self.context}."
            )
        places = self.places(jnp.arange(length))
        x = self.characters(texts) + places[None]
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))
