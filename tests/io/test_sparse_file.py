"""Pruned parameters in files."""

import io
import os
import pickle
import resource
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import swd_jax

NUMPY_TYPES = ["float32", "float16", "int8", "uint8", "bool", "complex64"]
OTHER_TYPES = ["bfloat16", "float8_e4m3fn", "float8_e5m2", "int4"]


def random(*shape, seed=0, dtype=jnp.float32):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def saved_and_loaded(folder, params, like=None):
    swd_jax.io.save_sparse(folder / "model.npz", params)
    return swd_jax.io.load_sparse(
        folder / "model.npz", params if like is None else like
    )


class TestRoundTrip:
    @pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
    @pytest.mark.parametrize("sparsity", [0, 0.5, 0.99])
    def test_keeps_all_numbers(self, tmp_path, dtype, sparsity):
        params = {
            "layer": {"kernel": random(13, 7, dtype=dtype), "bias": jnp.zeros(7)},
            "steps": jnp.array(3),
            "empty": jnp.zeros((0, 4)),
            "allow_pickle": jnp.ones(2),  # NumPy has an argument of this name
        }
        pruned = swd_jax.prune(params, swd_jax.Target(sparsity, prunable="kernel"))
        size = swd_jax.io.save_sparse(tmp_path / "model", pruned)
        assert size == (tmp_path / "model.npz").stat().st_size
        like = jax.eval_shape(lambda: pruned)
        loaded = swd_jax.io.load_sparse(tmp_path / "model", like)
        assert jax.tree.structure(loaded) == jax.tree.structure(pruned)
        for a, b in zip(*map(jax.tree.leaves, (loaded, pruned)), strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)

    @pytest.mark.parametrize("dtype", NUMPY_TYPES + OTHER_TYPES)
    @pytest.mark.parametrize("pruned", [False, True])
    def test_keeps_all_types(self, tmp_path, dtype, pruned):
        numbers = np.arange(-4, 4).repeat(40)
        if pruned:
            numbers[np.arange(320) % 9 > 0] = 0
        leaf = jnp.asarray(numbers).astype(dtype)
        loaded = saved_and_loaded(tmp_path, {"w": leaf})["w"]
        assert loaded.dtype == leaf.dtype
        assert (loaded == leaf).all()

    def test_keeps_a_tree_that_is_one_array(self, tmp_path):
        leaf = jnp.zeros(99).at[7].set(2.0)
        np.testing.assert_array_equal(saved_and_loaded(tmp_path, leaf), leaf)

    def test_leaves_out_random_keys(self, tmp_path):
        params = {"key": jax.random.key(0), "w": jnp.ones(3)}
        like = {"key": jax.random.key(1), "w": jnp.zeros(3)}
        loaded = saved_and_loaded(tmp_path, params, like)
        assert loaded["key"] is like["key"]
        assert loaded["w"].tolist() == [1, 1, 1]


class TestFiles:
    def test_are_as_small_as_they_should_be(self, tmp_path):
        params = {"kernel": random(300, 400)}
        sizes = {}
        for sparsity in (0, 0.9, 0.99):
            pruned = swd_jax.prune(params, sparsity)
            sizes[sparsity] = swd_jax.io.save_sparse(tmp_path / "m.npz", pruned)
        # Values take 4 bytes, and a mask at most a bit a weight.
        assert sizes[0] > 0.9 * 480_000
        assert sizes[0.9] < 48_000 + 15_000 + 1_000
        assert sizes[0.99] < 4_800 + 15_000 / 4 + 1_000

    def test_can_be_read_with_numpy_alone(self, tmp_path):
        pruned = swd_jax.prune({"first": random(20, 50)}, 0.8)
        swd_jax.io.save_sparse(tmp_path / "model.npz", pruned)
        with np.load(tmp_path / "model.npz") as file:
            kernel = np.zeros(file["first.shape"], np.float32)
            bits = np.unpackbits(file["first.mask"], count=kernel.size)
            kernel[bits.reshape(kernel.shape) == 1] = file["first.values"]
        np.testing.assert_array_equal(kernel, pruned["first"])

    def test_hold_the_types_that_numpy_lacks(self, tmp_path):
        params = {"w": jnp.ones(3, jnp.bfloat16)}
        swd_jax.io.save_sparse(tmp_path / "model.npz", params)
        with np.load(tmp_path / "model.npz") as file:
            assert str(file["w.dtype"]) == "bfloat16"
            # 1.0 in bfloat16: exponent 127, which begins at bit 7.
            assert file["w"].tolist() == [127 << 7] * 3


class TestOtherTypes:
    @pytest.mark.parametrize(
        ("numbers", "dtype", "like"),
        [
            ([0.5, -2.0, np.nan, np.inf], "float32", "bfloat16"),
            ([0.5, -2.0, np.nan, np.inf], "bfloat16", "float32"),
            ([1.0, 3.0, -7.0], "float32", "int8"),
            ([1, 2, 2**24], "int32", "float32"),
            ([0, 1], "int32", "bool"),
        ],
    )
    def test_that_represent_the_numbers_are_converted_to(
        self, tmp_path, numbers, dtype, like
    ):
        params = {"w": jnp.asarray(numbers).astype(dtype)}
        like = {"w": jax.ShapeDtypeStruct((len(numbers),), jnp.dtype(like))}
        loaded = saved_and_loaded(tmp_path, params, like)["w"]
        assert loaded.dtype == like["w"].dtype
        np.testing.assert_array_equal(
            np.asarray(loaded, np.float64), np.asarray(numbers, np.float64)
        )

    @pytest.mark.parametrize(
        ("numbers", "dtype", "like"),
        [
            ([0.5, 1.0], "float32", "int32"),
            ([np.nan, 1.0], "float32", "int32"),
            ([0.1], "float32", "bfloat16"),
            ([3e38], "float32", "float16"),
            ([2**24 + 1], "int32", "float32"),
            ([-1, 3], "int8", "uint8"),
            ([255, 3], "uint8", "int8"),
            ([0, 2], "int32", "bool"),
            ([1j], "complex64", "float32"),
        ],
    )
    def test_that_do_not_represent_them_are_refused(
        self, tmp_path, numbers, dtype, like
    ):
        params = {"w": jnp.asarray(numbers).astype(dtype)}
        like = {"w": jax.ShapeDtypeStruct((len(numbers),), jnp.dtype(like))}
        with pytest.raises(ValueError, match=r"for 'w' that \w+ cannot represent"):
            saved_and_loaded(tmp_path, params, like)

    def test_that_jax_lacks_are_refused(self, tmp_path):
        params = {"w": np.array([0.1], np.float64)}
        with pytest.raises(ValueError, match="that float32 cannot represent"):
            saved_and_loaded(tmp_path, params)


class TestPaths:
    def test_that_the_file_lacks(self, tmp_path):
        with pytest.raises(ValueError, match="has nothing for 'b'"):
            saved_and_loaded(tmp_path, {"a": jnp.ones(3)}, {"b": jnp.ones(3)})

    def test_that_like_lacks(self, tmp_path):
        params = {"a": jnp.ones(3), "head": {"b": jnp.ones(2), "c": jnp.ones(1)}}
        with pytest.raises(
            ValueError, match=r"model.npz' has arrays that like lacks"
        ) as e:
            saved_and_loaded(tmp_path, params, {"a": jnp.ones(3)})
        assert str(e.value).endswith(":\n  head/b\n  head/c")

    def test_that_no_archive_can_have(self, tmp_path):
        params = {"a": jnp.ones(3), "a\0b": jnp.ones(3)}
        with pytest.raises(ValueError, match=r"'a\\x00b', which cannot be a name"):
            swd_jax.io.save_sparse(tmp_path / "model.npz", params)

    def test_of_other_shapes(self, tmp_path):
        with pytest.raises(
            ValueError, match=r"shape \(3,\) for 'a', and like has \(4,"
        ):
            saved_and_loaded(tmp_path, {"a": jnp.ones(3)}, {"a": jnp.ones(4)})

    def test_of_no_array(self, tmp_path):
        with pytest.raises(ValueError, match="tree of arrays, and has none"):
            swd_jax.io.save_sparse(tmp_path / "model.npz", {})

    def test_of_parts_are_none_of_the_tree(self, tmp_path):
        # A sparse "a" has an entry "a.mask", whose shape is the same.
        bits = {"a.mask": jnp.zeros(13, jnp.uint8)}
        with pytest.raises(ValueError, match=r"has nothing for 'a\.mask'"):
            saved_and_loaded(tmp_path, {"a": jnp.zeros(99)}, bits)

    def test_that_end_like_parts_are_kept(self, tmp_path):
        params = {"a": jnp.ones(3), "a.mask": jnp.zeros(2), "b.shape": jnp.ones(1)}
        loaded = saved_and_loaded(tmp_path, params)
        assert loaded["a.mask"].tolist() == [0, 0]

    @pytest.mark.parametrize(
        ("names", "fill"),
        [
            (["a", "a.mask"], 0),
            (["b.mask", "b.values", "b.shape"], 1),
            (["c", "c.dtype"], 1),
        ],
    )
    def test_that_could_be_mistaken_for_parts(self, tmp_path, names, fill):
        params = {name: jnp.full(99, fill) for name in names}
        with pytest.raises(ValueError, match="also a name that the file needs"):
            swd_jax.io.save_sparse(tmp_path / "model.npz", params)

    def test_of_two_arrays(self, tmp_path):
        twice = {"a/b": {"c": jnp.ones(2)}, "a": {"b/c": jnp.zeros(2)}}
        with pytest.raises(ValueError, match="two arrays with the path 'a/b/c'"):
            swd_jax.io.save_sparse(tmp_path / "model.npz", twice)
        with pytest.raises(ValueError, match="two arrays with the path 'a/b/c'"):
            saved_and_loaded(tmp_path, {"a": {"b": {"c": jnp.ones(2)}}}, twice)


def write_entries(file, **entries):
    """An archive of `.npy` entries, whatever they hold."""
    with zipfile.ZipFile(file, "w") as archive:
        for name, entry in entries.items():
            stream = io.BytesIO()
            np.lib.format.write_array(stream, np.asarray(entry))
            archive.writestr(f"{name}.npy", stream.getvalue())


class Command:
    """Its pickle runs a command that makes a file."""

    def __init__(self, made):
        self.made = made

    def __reduce__(self):
        return os.system, (f"touch {self.made}",)


# Of a pruned "w" with 9 weights, two of which are not zero.
PARTS = {
    "w.mask": np.packbits([0, 1, 0, 0, 0, 0, 0, 0, 1]),
    "w.values": np.array([3, 4], np.float32),
    "w.shape": np.array([9], np.int64),
}


class TestDamagedFiles:
    LIKE = {"w": jax.ShapeDtypeStruct((9,), jnp.float32)}

    def test_the_parts_by_themselves_are_right(self, tmp_path):
        write_entries(tmp_path / "model.npz", **PARTS)
        loaded = swd_jax.io.load_sparse(tmp_path / "model.npz", self.LIKE)
        assert loaded["w"].tolist() == [0, 3, 0, 0, 0, 0, 0, 0, 4]

    @pytest.mark.parametrize(
        ("changed", "problem"),
        [
            ({"w.mask": PARTS["w.mask"][:1]}, "the mask has 1 bytes for 9 weights"),
            ({"w.mask": PARTS["w.mask"].astype("u2")}, "the mask has 2 bytes for 9"),
            ({"w.values": np.ones(3)}, "2 nonzero weights, and 3 values are there"),
            ({"w.values": np.ones((2, 1))}, "2 nonzero weights, and 2 values"),
            ({"w.shape": np.array([-9])}, "'w.shape' is no shape"),
            ({"w.shape": np.array([9.0])}, "'w.shape' is no shape"),
            ({"w.dtype": "bfloat16"}, "float32 numbers are no bfloat16"),
            ({"w.dtype": "object"}, "float32 numbers are no object"),
            ({"w.dtype": "float7_e3m3"}, "the type 'float7_e3m3' is unknown here"),
        ],
    )
    def test_of_which_a_part_is_wrong_are_named(self, changed, problem, tmp_path):
        write_entries(tmp_path / "model.npz", **PARTS | changed)
        with pytest.raises(
            ValueError, match=f"model.npz' is damaged at 'w': .*{problem}"
        ):
            swd_jax.io.load_sparse(tmp_path / "model.npz", self.LIKE)

    def test_whose_shape_is_huge_allocate_nothing(self, tmp_path):
        huge = {"w.shape": np.array([2**60, 2**60])}
        write_entries(tmp_path / "model.npz", **PARTS | huge)
        with pytest.raises(
            ValueError, match=r"has an array of shape \(11529\d+, 11529"
        ):
            swd_jax.io.load_sparse(tmp_path / "model.npz", self.LIKE)

    @pytest.mark.parametrize(
        "values", [np.zeros(9, "V2"), np.full(9, "a"), np.zeros(9, "f4,f4")]
    )
    def test_of_no_numbers_are_refused(self, values, tmp_path):
        write_entries(tmp_path / "model.npz", w=values)
        with pytest.raises(ValueError, match=r"for 'w', which are no numbers"):
            swd_jax.io.load_sparse(tmp_path / "model.npz", self.LIKE)
        with pytest.raises(ValueError, match="at 'w', which are no numbers"):
            swd_jax.io.save_sparse(tmp_path / "other.npz", {"w": values})

    def test_with_pickles_run_nothing(self, tmp_path):
        made = tmp_path / "made"
        write_entries(tmp_path / "model.npz", w=np.array([Command(made)] * 9))
        with pytest.raises(ValueError, match="damaged at 'w': .*allow_pickle=False"):
            swd_jax.io.load_sparse(tmp_path / "model.npz", self.LIKE)
        (tmp_path / "model.npz").write_bytes(pickle.dumps(Command(made)))
        with pytest.raises(ValueError, match=r"model.npz' is no \.npz file"):
            swd_jax.io.load_sparse(tmp_path / "model.npz", self.LIKE)
        assert not made.exists()

    @pytest.mark.parametrize("kind", ["nothing", "text", "npy"])
    def test_of_another_kind_are_named(self, kind, tmp_path):
        contents = {"nothing": b"", "text": b"no archive", "npy": b"\x93NUMPY\1\0"}
        (tmp_path / "model.npz").write_bytes(contents[kind])
        with pytest.raises(
            ValueError, match=r"model.npz' is no \.npz file, or only a p"
        ):
            swd_jax.io.load_sparse(tmp_path / "model.npz", self.LIKE)

    def test_that_are_not_there_are_named(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="model.npz"):
            swd_jax.io.load_sparse(tmp_path / "model", self.LIKE)

    def test_at_any_byte_are_refused_or_right(self, tmp_path):
        file = tmp_path / "model.npz"
        params = {"w": jnp.zeros(99, jnp.bfloat16).at[3].set(2.5), "b": jnp.ones(2)}
        swd_jax.io.save_sparse(file, params)
        whole = file.read_bytes()
        cut = [whole[:end] for end in range(0, len(whole), 29)]
        flipped = [
            whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :]
            for at in range(0, len(whole), 5)
        ]
        errors = []
        for content in cut + flipped:
            file.write_bytes(content)
            try:
                loaded = swd_jax.io.load_sparse(file, params)
            except ValueError as error:
                errors.append(str(error))
            else:  # a byte that says nothing of the numbers, such as a date
                jax.tree.map(np.testing.assert_array_equal, loaded, params)
        assert all(str(file) in error for error in errors)
        assert len(errors) > len(cut + flipped) / 2


@pytest.fixture
def small_disk():
    """No file may grow beyond 8 KiB: the system refuses to write on."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


class TestWriting:
    def test_that_fails_leaves_the_old_file(self, tmp_path, small_disk):
        file = tmp_path / "model.npz"
        swd_jax.io.save_sparse(file, {"w": jnp.ones(3)})
        before = file.read_bytes()
        with pytest.raises(
            OSError, match=r"nothing was written, and the file that was there is unch"
        ) as raised:
            swd_jax.io.save_sparse(file, {"w": random(300, 300)})
        assert str(file) in str(raised.value)
        assert file.read_bytes() == before
        assert list(tmp_path.iterdir()) == [file]

    def test_that_fails_leaves_nothing(self, tmp_path, small_disk):
        with pytest.raises(OSError, match=r"nothing was written: .*model\.npz"):
            swd_jax.io.save_sparse(tmp_path / "model.npz", {"w": random(300, 300)})
        assert not list(tmp_path.iterdir())

    def test_to_a_folder_that_is_not_there_names_the_file(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"nowhere/model\.npz"):
            swd_jax.io.save_sparse(tmp_path / "nowhere/model.npz", {"w": jnp.ones(3)})

    def test_keeps_the_permissions_and_the_links_there_were(self, tmp_path):
        file, link = tmp_path / "model.npz", tmp_path / "latest.npz"
        swd_jax.io.save_sparse(file, {"w": jnp.ones(3)})
        file.chmod(0o600)
        link.symlink_to(file)
        swd_jax.io.save_sparse(link, {"w": jnp.zeros(3)})
        assert link.is_symlink()
        assert file.stat().st_mode & 0o777 == 0o600
        loaded = swd_jax.io.load_sparse(file, {"w": jnp.ones(3)})
        assert loaded["w"].tolist() == [0, 0, 0]

    def test_may_go_on_while_the_file_is_read(self, tmp_path):
        file = tmp_path / "model.npz"
        swd_jax.io.save_sparse(file, {"w": jnp.ones(3)})
        with np.load(file) as before:
            swd_jax.io.save_sparse(file, {"w": jnp.zeros(3)})
            assert before["w"].tolist() == [1, 1, 1]
