"""Loading data sets by name, from tiny files of every format that are written here."""

import gzip
import importlib
import os
import pickle
import sys
import tarfile
import types
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import sparse

# As for a script in examples/, whose folder comes first on the path.
with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(Path(__file__).parents[2] / "examples")
    data_loading = importlib.import_module("data_loading")
    pickles = importlib.import_module("data_loading.pickles")
    planetoid = importlib.import_module("data_loading.planetoid")
load, BadFile, MissingData = (
    data_loading.load,
    data_loading.BadFile,
    data_loading.MissingData,
)
RNG = np.random.default_rng(11)


@pytest.fixture(autouse=True)
def nothing_is_downloaded(monkeypatch):
    """Neither library is there, whatever is installed."""
    for library in ("tensorflow_datasets", "datasets"):
        monkeypatch.setitem(sys.modules, library, None)


def pixels(*shape):
    return RNG.integers(0, 256, shape, dtype=np.uint8)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-10])


class TestDigits:
    def test_need_no_folder(self):
        digits = load("digits", None)
        assert digits.train_images.shape == (1437, 8, 8, 1)
        assert digits.test_images.shape == (360, 8, 8, 1)
        assert digits.train_images.max() == 240
        assert digits.classes == 10

    def test_have_the_split_of_the_digits_example(self):
        training = importlib.import_module("examples.digits_training")
        digits = load("digits", None)
        train, test = training.load_images()
        np.testing.assert_array_equal(digits.train_labels, train.labels)
        np.testing.assert_array_equal(digits.test_labels, test.labels)
        np.testing.assert_allclose(digits.test_images / 240, test.pixels, atol=1e-6)


class TestNames:
    def test_that_do_not_exist_are_answered_with_those_that_do(self, tmp_path):
        with pytest.raises(ValueError, match="'svhn'.*digits, mnist, cifar10") as error:
            load("svhn", tmp_path)
        assert all(name in str(error.value) for name in data_loading.NAMES)

    @pytest.mark.parametrize(
        "name", [n for n in data_loading.NAMES if n not in ("digits", "picture")]
    )
    def test_of_what_is_missing_come_with_where_it_was_looked_for(self, name, tmp_path):
        with pytest.raises(MissingData) as error:
            load(name, tmp_path)
        message = str(error.value)
        assert message.startswith(f"{name}: it is not in {tmp_path}")
        assert "Get it from https://" in message
        assert "download" in message
        expected = {
            "mnist": "t10k-labels-idx1-ubyte (or .gz) in the folder itself, mnist, M",
            "cifar10": "data_batch_5, test_batch in cifar-10-batches-py",
            "cifar100": "cifar-100-python.tar.gz",
            "text": "*.txt in the folder itself",
        }
        assert expected.get(name, f"ind.{name}.test.index") in message

    def test_of_folders_that_do_not_exist_are_told(self, tmp_path):
        with pytest.raises(MissingData, match=r"there is no folder .*nowhere"):
            load("mnist", tmp_path / "nowhere")

    def test_without_a_folder_are_answered_with_what_is_looked_for(self):
        with pytest.raises(MissingData, match=r"no folder was given(.|\n)*mnist\.npz"):
            load("mnist", None)


class TestText:
    CONTENT = "naïve 🐟 banana\n" * 10

    @pytest.mark.parametrize("place", ["", "tinyshakespeare"])
    def test_in_a_folder_or_as_a_file(self, place, tmp_path):
        (tmp_path / place).mkdir(exist_ok=True)
        path = tmp_path / place / "input.txt"
        path.write_text(self.CONTENT, "utf-8")
        for data in (tmp_path, path):
            text = load("text", data)
            assert text.name == "input (135/15 characters)"
            assert text.vocabulary == "\n abenvï🐟"
            numbers = np.concatenate([text.train, text.test])
            assert "".join(text.vocabulary[i] for i in numbers) == self.CONTENT
            assert (len(text.train), len(text.test)) == (135, 15)

    def test_that_is_none_is_named(self, tmp_path):
        path = tmp_path / "a.txt"
        path.write_bytes(b"\xff\xfe\x00")
        with pytest.raises(BadFile, match=r"a\.txt: .*utf-8"):
            load("text", tmp_path)

    def test_only_a_text_may_be_a_file(self, tmp_path):
        path = tmp_path / "mnist.npz"
        path.touch()
        with pytest.raises(MissingData, match=r"there is no folder .*mnist\.npz"):
            load("mnist", path)


MNIST_TRAIN, MNIST_TRAIN_LABELS = pixels(20, 4, 3), np.arange(20) % 10
MNIST_TEST, MNIST_TEST_LABELS = pixels(10, 4, 3), np.arange(10)


def idx(array, magic):
    header = np.array([magic, *array.shape], ">u4")
    return header.tobytes() + array.astype(np.uint8).tobytes()


def write_idx(folder, ending=""):
    folder.mkdir(parents=True, exist_ok=True)
    for name, array, magic in (
        ("train-images-idx3-ubyte", MNIST_TRAIN, 0x803),
        ("train-labels-idx1-ubyte", MNIST_TRAIN_LABELS, 0x801),
        ("t10k-images-idx3-ubyte", MNIST_TEST, 0x803),
        ("t10k-labels-idx1-ubyte", MNIST_TEST_LABELS, 0x801),
    ):
        content = idx(array, magic)
        packed = gzip.compress(content) if ending else content
        (folder / f"{name}{ending}").write_bytes(packed)


def assert_is_mnist(images):
    assert images.name == "mnist"
    np.testing.assert_array_equal(images.train_images, MNIST_TRAIN[..., None])
    np.testing.assert_array_equal(images.train_labels, MNIST_TRAIN_LABELS)
    np.testing.assert_array_equal(images.test_images, MNIST_TEST[..., None])
    np.testing.assert_array_equal(images.test_labels, MNIST_TEST_LABELS)
    assert images.train_labels.dtype == images.test_labels.dtype == np.int32


class TestMnist:
    @pytest.mark.parametrize("place", ["", "mnist", "MNIST/raw"])
    @pytest.mark.parametrize("ending", ["", ".gz"])
    def test_in_idx_files(self, ending, place, tmp_path):
        write_idx(tmp_path / place, ending)
        assert_is_mnist(load("mnist", tmp_path))

    def test_in_the_npz_of_keras(self, tmp_path):
        np.savez(
            tmp_path / "mnist.npz",
            x_train=MNIST_TRAIN,
            y_train=MNIST_TRAIN_LABELS,
            x_test=MNIST_TEST,
            y_test=MNIST_TEST_LABELS.astype(np.uint8),
        )
        assert_is_mnist(load("mnist", str(tmp_path)))

    @pytest.mark.parametrize(
        ("count", "name"), [(20, "mnist-20 (16/4)"), (1000, "mnist-1k (800/200)")]
    )
    def test_in_an_npz_without_a_split(self, count, name, tmp_path):
        images, labels = pixels(count, 2, 2), np.arange(count) % 10
        np.savez(tmp_path / "mnist_part.npz", images=images, labels=labels)
        loaded = load("mnist", tmp_path)
        assert loaded.name == name
        train = count * 4 // 5
        np.testing.assert_array_equal(loaded.train_images, images[:train, ..., None])
        np.testing.assert_array_equal(loaded.test_labels, labels[train:])

    def test_tells_what_an_incomplete_set_lacks(self, tmp_path):
        write_idx(tmp_path)
        (tmp_path / "t10k-labels-idx1-ubyte").unlink()
        with pytest.raises(MissingData, match="has some, but lacks t10k-labels-idx1-"):
            load("mnist", tmp_path)

    @pytest.mark.parametrize(
        ("content", "problem"),
        [
            (idx(MNIST_TRAIN, 0x801), "begins with 0x00000801 instead of 0x00000803"),
            (b"", "begins with 0x00000000"),
            (idx(MNIST_TRAIN, 0x803)[:10], "truncated, only 10 bytes"),
            (idx(MNIST_TRAIN, 0x803)[:-1], r"truncated, 255 bytes where \[20, 4, 3\]"),
            (idx(MNIST_TRAIN, 0x803) + b"x", "too long, 257 bytes where"),
        ],
    )
    def test_names_a_bad_idx_file(self, content, problem, tmp_path):
        write_idx(tmp_path)
        (tmp_path / "train-images-idx3-ubyte").write_bytes(content)
        with pytest.raises(BadFile, match=f"train-images-idx3-ubyte: {problem}"):
            load("mnist", tmp_path)

    def test_names_a_truncated_gz(self, tmp_path):
        write_idx(tmp_path, ".gz")
        truncate(tmp_path / "t10k-images-idx3-ubyte.gz")
        with pytest.raises(BadFile, match=r"t10k-images-idx3-ubyte\.gz: EOFError"):
            load("mnist", tmp_path)

    def test_names_the_labels_that_do_not_fit_the_images(self, tmp_path):
        write_idx(tmp_path)
        path = tmp_path / "t10k-labels-idx1-ubyte"
        path.write_bytes(idx(np.arange(9), 0x801))
        with pytest.raises(BadFile, match="idx1-ubyte: 9 labels for the 10 images of"):
            load("mnist", tmp_path)

    def test_refuses_labels_out_of_range(self, tmp_path):
        write_idx(tmp_path)
        path = tmp_path / "t10k-labels-idx1-ubyte"
        path.write_bytes(idx(np.arange(10) + 1, 0x801))
        with pytest.raises(BadFile, match="test labels go from 1 to 10, but 10 class"):
            load("mnist", tmp_path)

    def test_names_a_truncated_npz(self, tmp_path):
        path = tmp_path / "mnist.npz"
        np.savez(path, images=MNIST_TRAIN, labels=MNIST_TRAIN_LABELS)
        truncate(path)
        with pytest.raises(BadFile, match=r"mnist\.npz: BadZipFile"):
            load("mnist", tmp_path)

    def test_names_an_npz_with_other_arrays(self, tmp_path):
        np.savez(tmp_path / "mnist.npz", images=MNIST_TRAIN, classes=MNIST_TRAIN_LABELS)
        with pytest.raises(BadFile, match=r"mnist\.npz: has images, classes, but nei"):
            load("mnist", tmp_path)

    @pytest.mark.parametrize(
        ("labels", "problem"),
        [
            (np.array([{}] * 20), "allow_pickle=False"),
            (np.arange(20) / 20, "whole numbers, but these are float64"),
            (np.arange(15), "15 labels for the 20 images"),
        ],
    )
    def test_refuses_labels_of_another_kind_in_an_npz(self, labels, problem, tmp_path):
        np.savez(tmp_path / "mnist.npz", images=MNIST_TRAIN, labels=labels)
        with pytest.raises(BadFile, match=f"mnist.npz: .*({problem})"):
            load("mnist", tmp_path)


CIFAR = {
    "cifar10": ("cifar-10-batches-py", "labels", 10),  # folder, key, classes
    "cifar100": ("cifar-100-python", "fine_labels", 100),
}


def write_batches(name, folder):
    """The batches, and what they should be loaded as."""
    inner, key, classes = CIFAR[name]
    (folder / inner).mkdir(parents=True)
    train = [f"data_batch_{n}" for n in range(1, 6)] if classes == 10 else ["train"]
    test = "test_batch" if classes == 10 else "test"
    images, labels = [], []
    for number, file in enumerate([*train, test]):
        images.append(pixels(2, 32, 32, 3))
        labels.append([number, classes - 1])
        rows = images[-1].transpose(0, 3, 1, 2).reshape(2, -1)
        batch = {"data": rows, key: labels[-1], "batch_label": file}
        # The protocol of Python 2, in which they come.
        content = pickle.dumps(batch, protocol=2)
        (folder / inner / file).write_bytes(content)
    return np.concatenate(images[:-1]), np.concatenate(labels[:-1]), images[-1]


def pack(archive, folder, *names):
    mode = "w:" + archive.suffix[1:].replace("tar", "")
    with tarfile.open(archive, mode) as file:
        for name in names:
            file.add(folder / name, arcname=name)


class Innocent:
    """Its pickle runs a command: it would write a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("name", CIFAR)
class TestPythonBatches:
    def test_in_a_folder(self, name, tmp_path):
        train_images, train_labels, test_images = write_batches(name, tmp_path)
        loaded = load(name, tmp_path)
        assert (loaded.name, loaded.classes) == (name, CIFAR[name][2])
        np.testing.assert_array_equal(loaded.train_images, train_images)
        np.testing.assert_array_equal(loaded.train_labels, train_labels)
        np.testing.assert_array_equal(loaded.test_images, test_images)

    def test_in_their_archive(self, name, tmp_path):
        train_images, _, test_images = write_batches(name, tmp_path / "unpacked")
        inner = CIFAR[name][0]
        archive = tmp_path / f"cifar-{CIFAR[name][2]}-python.tar.gz"
        pack(archive, tmp_path / "unpacked", inner)
        loaded = load(name, tmp_path)
        np.testing.assert_array_equal(loaded.train_images, train_images)
        np.testing.assert_array_equal(loaded.test_images, test_images)

    def test_that_are_truncated_are_named(self, name, tmp_path):
        write_batches(name, tmp_path)
        test = next((tmp_path / CIFAR[name][0]).glob("test*"))
        truncate(test)
        with pytest.raises(BadFile, match=rf"{test.name}: .*truncated"):
            load(name, tmp_path)

    def test_that_would_run_something_are_refused(self, name, tmp_path):
        write_batches(name, tmp_path)
        test = next((tmp_path / CIFAR[name][0]).glob("test*"))
        test.write_bytes(pickle.dumps({"data": Innocent(tmp_path / "trace")}))
        with pytest.raises(BadFile, match=rf"{test.name}: refused.*\.system"):
            load(name, tmp_path)
        assert not (tmp_path / "trace").exists()

    @pytest.mark.parametrize(
        ("content", "problem"),
        [
            ([1, 2], "not a dictionary, but list"),
            ({"data": np.zeros((2, 3), np.uint8)}, "KeyError"),
            (
                {
                    "data": np.zeros((2, 3072)),
                    "labels": [0, 1],
                    "fine_labels": [0, 1],
                },
                "data is float64",
            ),
        ],
    )
    def test_with_another_content_are_named(self, name, content, problem, tmp_path):
        write_batches(name, tmp_path)
        test = next((tmp_path / CIFAR[name][0]).glob("test*"))
        test.write_bytes(pickle.dumps(content))
        with pytest.raises(BadFile, match=f"{test.name}: {problem}"):
            load(name, tmp_path)


class Calls:
    """Its pickle calls a function, and may then set the state of what it returns."""

    def __init__(self, function, *arguments, state=None):
        self.reduced = (function, arguments, *(() if state is None else (state,)))

    def __reduce__(self):
        return self.reduced


# What `numpy.dtype("O")` would be if it held no objects.
NO_OBJECTS = Calls(np.dtype, "O", state=(3, "|", None, None, None, -1, -1, 0))
FROM_BUFFER = np.zeros(1).__reduce_ex__(5)[0]
SCALAR = np.float64(0).__reduce__()[0]
RECONSTRUCT = np.zeros(1).__reduce__()[0]
ADDRESS = 8 * b"A"


def array_with_state(shape, dtype, content):
    state = (1, shape, dtype, False, content)
    return Calls(RECONSTRUCT, np.ndarray, (0,), b"b", state=state)


class TestPickles:
    @pytest.mark.parametrize("protocol", range(2, 6))
    @pytest.mark.parametrize(
        "content",
        [
            np.arange(6, dtype=">i4").reshape(2, 3),
            np.asfortranarray(np.arange(6.0).reshape(2, 3)),
            np.array([[True], [False]]),
            np.zeros((0, 3), np.complex64),
            np.array(7, np.uint8),
            [np.float32(0.1), np.int64(-3), np.bool_(True)],
            {"a": (1, 2.5, None, b"x", "y"), "b": {1, 2}},
        ],
    )
    def test_of_numbers_are_those_of_python(self, content, protocol):
        packed = pickle.dumps(content, protocol)
        found, expected = pickles.unpickle(packed, "a file"), pickle.loads(packed)
        if isinstance(expected, np.ndarray):
            assert found.dtype == expected.dtype
            np.testing.assert_array_equal(found, expected, strict=False)
            assert found.flags.f_contiguous == expected.flags.f_contiguous
        else:
            assert found == expected
            assert list(map(type, found)) == list(map(type, expected))

    @pytest.mark.parametrize(
        ("function", "arguments"),
        [
            (eval, ("open(PATH, 'w')",)),
            (exec, ("open(PATH, 'w')",)),
            (open, ("PATH", "w")),
            (getattr, (1, "real")),
            (os.system, ("touch PATH",)),
            (importlib.import_module, ("antigravity",)),
            (np.load, ("PATH",)),
            (np.save, ("PATH", 1)),
        ],
    )
    def test_that_call_other_functions_are_refused(self, function, arguments, tmp_path):
        path = tmp_path / "trace"
        arguments = [
            each.replace("PATH", str(path)) if isinstance(each, str) else each
            for each in arguments
        ]
        content = pickle.dumps({"data": Calls(function, *arguments)})
        with pytest.raises(BadFile, match="^a file: refused, because it asks for "):
            pickles.unpickle(content, "a file")
        assert not path.exists()

    @pytest.mark.parametrize(
        "content",
        [
            np.array([{}, []], object),
            np.zeros(2, "i4,O"),
            np.array(["a"]),
            # Each of these reads memory at an address that the pickle gives.
            Calls(np.ndarray, (1,), "O", ADDRESS),
            Calls(FROM_BUFFER, ADDRESS, NO_OBJECTS, (1,), "C"),
            Calls(SCALAR, NO_OBJECTS, ADDRESS),
            array_with_state((1,), NO_OBJECTS, ADDRESS),
            array_with_state((1,), "O", ADDRESS),
            # These have fewer bytes than they say.
            array_with_state((2**40,), np.dtype("f8"), ADDRESS),
            array_with_state((-1, -1), np.dtype("f8"), ADDRESS),
            array_with_state((2,), np.dtype("f8"), ADDRESS),
            Calls(FROM_BUFFER, ADDRESS, np.dtype("f8"), (2,), "C"),
            Calls(SCALAR, np.dtype("f8"), b""),
        ],
        ids=range(13),
    )
    def test_of_arrays_that_are_none_are_refused(self, content):
        with pytest.raises(BadFile, match="^a file: (refused|damaged), "):
            pickles.unpickle(pickle.dumps(content), "a file")

    def test_cannot_change_what_reads_them(self):
        # GLOBAL csr_matrix, None, {"a": 1}, BUILD: attributes of the class itself.
        content = (
            b"\x80\x02cscipy.sparse.csr\ncsr_matrix\nN}X\x01\x00\x00\x00aK\x01s\x86b."
        )
        with pytest.raises(BadFile, match="^a file: damaged, "):
            pickles.unpickle(content, "a file")
        assert not hasattr(pickles.SparseRows, "a")


def test_an_archive_that_lacks_batches_is_named(tmp_path):
    write_batches("cifar10", tmp_path / "unpacked")
    archive = tmp_path / "cifar-10-python.tar.gz"
    pack(archive, tmp_path / "unpacked", "cifar-10-batches-py/data_batch_1")
    with pytest.raises(BadFile, match="lacks data_batch_2, .*test_batch"):
        load("cifar10", tmp_path)
    truncate(archive)
    with pytest.raises(BadFile, match=r"cifar-10-python\.tar\.gz: "):
        load("cifar10", tmp_path)


def hostile_members(outside):
    """Members that unpacking would put elsewhere, or that are no files."""
    link = tarfile.TarInfo("train/class_a/link.png")
    link.type, link.linkname = tarfile.SYMTYPE, str(outside)
    through = tarfile.TarInfo("train/class_a/link.png/0000.png")
    hard = tarfile.TarInfo("data_batch_1")
    hard.type, hard.linkname = tarfile.LNKTYPE, "../outside"
    device = tarfile.TarInfo("train/class_b/0000.png")
    device.type, device.devmajor = tarfile.CHRTYPE, 1
    above = tarfile.TarInfo("../outside/train/class_c/0000.png")
    absolute = tarfile.TarInfo(str(outside / "data_batch_2"))
    return [link, through, hard, device, above, absolute]


@pytest.mark.parametrize("name", ["cifar10.tar", "cifar-10-python.tar.gz"])
def test_archives_are_unpacked_nowhere(name, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    folder = tmp_path / "data"
    folder.mkdir()
    for member in hostile_members(outside):
        with tarfile.open(folder / name, "w:gz" if "gz" in name else "w") as archive:
            archive.addfile(member)
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(BadFile, match=rf"data/{name}"):
            load("cifar10", folder, tmp_path / "cache")
        assert sorted(tmp_path.rglob("*")) == before


CLASSES = [f"class_{letter}" for letter in "abcdefghij"]


def write_pictures(folder):
    """Two training pictures and a test picture of each class; PNG loses nothing."""
    arrays = {"train": pixels(10, 2, 4, 5, 3), "test": pixels(10, 1, 4, 5, 3)}
    for part, pictures in arrays.items():
        for name, of_class in zip(CLASSES, pictures, strict=True):
            (folder / part / name).mkdir(parents=True)
            for number, picture in enumerate(of_class):
                path = folder / part / name / f"{number:04}.png"
                Image.fromarray(picture).save(path)
    return arrays["train"].reshape(20, 4, 5, 3), arrays["test"].reshape(10, 4, 5, 3)


def assert_are(loaded, train_images, test_images):
    np.testing.assert_array_equal(loaded.train_images, train_images)
    np.testing.assert_array_equal(loaded.train_labels, np.arange(20) // 2)
    np.testing.assert_array_equal(loaded.test_images, test_images)
    np.testing.assert_array_equal(loaded.test_labels, np.arange(10))


class TestPictures:
    @pytest.mark.parametrize("place", ["", "cifar10"])
    def test_in_folders(self, place, tmp_path):
        expected = write_pictures(tmp_path / place)
        # What a Mac leaves there, and a list of the pictures.
        (tmp_path / place / "train/class_a/._0000.png").write_bytes(b"not a picture")
        (tmp_path / place / "train/class_a/list.txt").write_text("0000.png")
        assert_are(load("cifar10", tmp_path), *expected)

    @pytest.mark.parametrize("ending", ["tar", "tar.gz", "tar.xz"])
    def test_in_an_archive(self, ending, tmp_path):
        expected = write_pictures(tmp_path / "unpacked")
        archive = tmp_path / f"cifar10_png.{ending}"
        # In no particular order: the pictures are sorted after reading.
        pack(archive, tmp_path / "unpacked", "test", "train")
        assert_are(load("cifar10", tmp_path), *expected)
        with pytest.raises(MissingData):
            load("cifar100", tmp_path)

    def test_in_an_archive_of_cifar100_are_not_those_of_cifar10(self, tmp_path):
        write_pictures(tmp_path / "unpacked")
        pack(tmp_path / "cifar100.tar", tmp_path / "unpacked", "train", "test")
        with pytest.raises(MissingData):
            load("cifar10", tmp_path)
        with pytest.raises(BadFile, match="pictures in 10 class folders, not in 100"):
            load("cifar100", tmp_path)

    def test_in_jpeg_and_gray_become_colours(self, tmp_path):
        write_pictures(tmp_path)
        gray = Image.fromarray(np.full((4, 5), 100, np.uint8))
        gray.save(tmp_path / "train/class_a/0000.JPEG")
        loaded = load("cifar10", tmp_path)
        np.testing.assert_allclose(loaded.train_images[0], 100, atol=2)

    def test_that_are_damaged_are_named(self, tmp_path):
        write_pictures(tmp_path)
        path = tmp_path / "train/class_b/0001.png"
        path.write_bytes(path.read_bytes()[:60])
        with pytest.raises(BadFile, match=r"train/class_b/0001\.png: "):
            load("cifar10", tmp_path)

    def test_of_another_size_are_named(self, tmp_path):
        write_pictures(tmp_path)
        path = tmp_path / "test/class_b/0000.png"
        Image.fromarray(pixels(4, 4, 3)).save(path)
        with pytest.raises(BadFile, match=r"0000\.png: \(4, 4, 3\), others are"):
            load("cifar10", tmp_path)

    def test_of_different_classes_are_refused(self, tmp_path):
        write_pictures(tmp_path)
        (tmp_path / "test/class_b").rename(tmp_path / "test/class_x")
        with pytest.raises(BadFile, match="train and test have different class fold"):
            load("cifar10", tmp_path)

    def test_in_a_truncated_archive_are_named(self, tmp_path):
        write_pictures(tmp_path / "unpacked")
        archive = tmp_path / "cifar10.tar.xz"
        pack(archive, tmp_path / "unpacked", "train", "test")
        archive.write_bytes(archive.read_bytes()[:-2000])
        with pytest.raises(BadFile, match=r"cifar10\.tar\.xz: "):
            load("cifar10", tmp_path)


class TestCache:
    @pytest.fixture(params=["folder", "archive"])
    def data(self, request, tmp_path):
        """A data folder, and a function that changes what is in it."""
        folder = tmp_path / "data"
        pictures = folder / "cifar10" if request.param == "folder" else tmp_path / "u"
        self.expected = write_pictures(pictures)

        def publish():
            if request.param == "archive":
                folder.mkdir(exist_ok=True)
                pack(folder / "cifar10.tar", pictures, "train", "test")

        def change():
            path = pictures / "train/class_a/0000.png"
            self.expected[0][0] = 255 - self.expected[0][0]
            Image.fromarray(self.expected[0][0]).save(path)
            publish()

        publish()
        return folder, change

    @pytest.fixture
    def decoded(self, monkeypatch):
        """How many pictures have been decoded."""
        opened, original = [], Image.open
        monkeypatch.setattr(
            Image, "open", lambda file: opened.append(file) or original(file)
        )
        return lambda: len(opened)

    def load(self, folder, cache):
        assert_are(load("cifar10", folder, cache), *self.expected)

    def test_is_used_the_second_time(self, data, decoded, tmp_path):
        for _ in range(2):
            self.load(data[0], tmp_path / "cache")
        assert decoded() == 30
        assert [p.name for p in (tmp_path / "cache").iterdir()] == ["cifar10.npz"]

    def test_is_made_again_when_a_picture_changed(self, data, decoded, tmp_path):
        folder, change = data
        self.load(folder, tmp_path / "cache")
        change()
        self.load(folder, tmp_path / "cache")
        assert decoded() == 60

    @pytest.mark.parametrize("kept", [0, 3, 100, -10])
    def test_is_made_again_when_truncated(self, kept, data, decoded, tmp_path):
        self.load(data[0], tmp_path / "cache")
        path = tmp_path / "cache/cifar10.npz"
        whole = path.read_bytes()
        path.write_bytes(whole[:kept])
        self.load(data[0], tmp_path / "cache")
        assert decoded() == 60
        assert len(path.read_bytes()) == len(whole)

    def test_is_not_made_unless_a_folder_is_given(self, data, decoded, tmp_path):
        before = sorted(tmp_path.rglob("*"))
        for _ in range(2):
            self.load(data[0], None)
        assert decoded() == 60
        assert sorted(tmp_path.rglob("*")) == before

    def test_is_left_as_it_was_when_writing_fails(self, data, monkeypatch, tmp_path):
        def fail(stream, **arrays):
            stream.write(b"some of it")
            raise OSError("no space left")

        monkeypatch.setattr(np, "savez", fail)
        with pytest.raises(OSError, match="no space left"):
            self.load(data[0], tmp_path / "cache")
        assert list((tmp_path / "cache").iterdir()) == []


# Six nodes; 0 and 1 of two classes for training, 2 for validation, 5 and 3 for testing,
# in this order. Nothing is known of 4. Links are told from one end or both, 1-2 twice,
# and 3 is linked to itself.
GRAPH = {0: [1], 1: [0, 2, 2], 2: [1], 3: [3, 2], 4: [], 5: [0]}
ALLX = [[1, 0, 1], [0, 2, 0], [1, 1, 2]]
TX = [[0, 0, 0], [0, 3, 1]]  # of nodes 5 and 3
ALLY, TY = [[1, 0], [0, 1], [1, 0]], [[1, 0], [0, 1]]


def planetoid_parts():
    return {
        "x": sparse.csr_matrix(ALLX[:2], dtype=np.float32),
        "allx": sparse.csr_matrix(ALLX, dtype=np.float32),
        "tx": sparse.csr_matrix(TX, dtype=np.float32),
        "y": np.array(ALLY[:2], np.int32),
        "ally": np.array(ALLY, np.int32),
        "ty": np.array(TY, np.int32),
        "graph": GRAPH,
    }


def write_planetoid(folder, name, protocol=2, **changed):
    folder.mkdir(parents=True, exist_ok=True)
    for part, content in (planetoid_parts() | changed).items():
        path = folder / f"ind.{name}.{part}"
        path.write_bytes(pickle.dumps(content, protocol=protocol))
    (folder / f"ind.{name}.test.index").write_text("5\n3\n")


def dense(graph, what, columns):
    rows, columns_of = getattr(graph, f"{what}_rows"), getattr(graph, f"{what}_columns")
    matrix = np.zeros((graph.nodes, columns))
    np.add.at(matrix, (rows, columns_of), getattr(graph, f"{what}_values"))
    return matrix


class TestPlanetoid:
    @pytest.fixture(autouse=True)
    def one_node_for_validation(self, monkeypatch):
        monkeypatch.setattr(planetoid, "VALIDATION_NODES", 1)

    @pytest.mark.parametrize(
        ("name", "place"),
        [
            ("cora", ""),
            ("citeseer", "planetoid"),
            ("pubmed", "pubmed/raw"),
            ("citeseer", "CiteSeer/raw"),
        ],
    )
    @pytest.mark.parametrize("protocol", [2, 5])
    def test_against_a_graph_worked_out_by_hand(self, protocol, name, place, tmp_path):
        write_planetoid(tmp_path / place, name, protocol)
        graph = load(name, tmp_path)
        assert (graph.name, graph.nodes) == (name, 6)
        assert (graph.feature_count, graph.classes) == (3, 2)
        features = [
            [1 / 2, 0, 1 / 2],
            [0, 1, 0],
            [1 / 4, 1 / 4, 1 / 2],
            [0, 3 / 4, 1 / 4],
            [0, 0, 0],
            [0, 0, 0],
        ]
        np.testing.assert_allclose(dense(graph, "feature", 3), features, rtol=1e-6)
        # The links 0-1, 1-2, 2-3, 0-5 and each node's own: node by node that makes
        # 3, 3, 3, 2, 1 and 2.
        adjacency = np.diag([1 / 3, 1 / 3, 1 / 3, 1 / 2, 1, 1 / 2])
        for one, other, value in (
            (0, 1, 1 / 3),
            (1, 2, 1 / 3),
            (2, 3, 1 / np.sqrt(6)),
            (0, 5, 1 / np.sqrt(6)),
        ):
            adjacency[one, other] = adjacency[other, one] = value
        np.testing.assert_allclose(dense(graph, "edge", 6), adjacency, rtol=1e-6)
        assert len(graph.edge_values) == 6 + 2 * 4
        assert graph.labels.tolist() == [0, 1, 0, 1, 0, 0]
        assert graph.train_nodes.tolist() == [0, 1]
        assert graph.validation_nodes.tolist() == [2]
        assert graph.test_nodes.tolist() == [3, 5]

    def test_pickles_of_python_2_are_read(self, tmp_path):
        """Their modules have other names than those of today."""
        write_planetoid(tmp_path, "cora")
        path = tmp_path / "ind.cora.graph"
        # defaultdict(list, {1: [2], 3: []}), written out.
        path.write_bytes(
            b"\x80\x02ccollections\ndefaultdict\n(c__builtin__\nlist\ntR"
            b"(K\x01](K\x02eK\x03]u."
        )
        for part in ("allx", "tx"):
            path = tmp_path / f"ind.cora.{part}"
            old = path.read_bytes().replace(b"scipy.sparse._csr", b"scipy.sparse.csr")
            path.write_bytes(old.replace(b"numpy._core", b"numpy.core"))
        graph = load("cora", tmp_path)
        assert len(graph.edge_values) == 6 + 2
        assert len(graph.feature_values) == 8

    def test_what_would_run_something_is_refused(self, tmp_path):
        write_planetoid(tmp_path, "cora", graph=Innocent(tmp_path / "trace"))
        with pytest.raises(BadFile, match=r"ind\.cora\.graph: refused.*\.system"):
            load("cora", tmp_path)
        assert not (tmp_path / "trace").exists()

    @pytest.mark.parametrize(
        ("changed", "problem"),
        [
            ({"ally": np.eye(2)}, "allx and ally differ"),
            ({"ty": np.eye(3)}, "tx, ty and test.index differ"),
            ({"y": np.array(ALLY)}, "fewer than 1 nodes left"),
            ({"tx": np.zeros((2, 3))}, "a csr_matrix was expected, not _Array"),
            ({"graph": [1, 2]}, "graph is no dictionary"),
            ({"graph": {0: [7]}}, "index"),
            ({"graph": {0: [-1]}}, "index"),
        ],
    )
    def test_files_that_do_not_fit_are_told(self, changed, problem, tmp_path):
        write_planetoid(tmp_path, "cora", **changed)
        with pytest.raises(BadFile, match=rf"ind\.cora\.\*: .*{problem}"):
            load("cora", tmp_path)

    @pytest.mark.parametrize(
        ("index", "problem"),
        [
            ("5\nx\n", "invalid literal"),
            ("5\n", "tx, ty and test.index differ"),
            ("5\n0\n", "a node is twice"),
            ("5\n-9\n", "IndexError"),
        ],
    )
    def test_a_bad_test_index_is_told(self, index, problem, tmp_path):
        write_planetoid(tmp_path, "cora")
        (tmp_path / "ind.cora.test.index").write_text(index)
        with pytest.raises(BadFile, match=rf"ind\.cora\..*: .*{problem}"):
            load("cora", tmp_path)

    @pytest.mark.parametrize("kept", [0, 5, 100, -10])
    def test_a_truncated_file_is_named(self, kept, tmp_path):
        write_planetoid(tmp_path, "cora")
        path = tmp_path / "ind.cora.allx"
        path.write_bytes(path.read_bytes()[:kept])
        with pytest.raises(BadFile, match=r"ind\.cora\.allx: "):
            load("cora", tmp_path)

    def test_an_index_out_of_a_matrix_is_refused(self, tmp_path):
        """SciPy itself would read memory that is not the array's."""
        bad = sparse.csr_matrix(np.array(TX, np.float32))
        bad.indices[0] = 1000
        write_planetoid(tmp_path, "cora", tx=bad)
        with pytest.raises(BadFile, match="ind.cora"):
            load("cora", tmp_path)


class TestHead:
    def images(self, labels):
        """The first number of an image tells where it was."""
        labels = np.array(labels, np.int32)
        images = np.zeros((len(labels), 2, 2, 1), np.uint8)
        images[:, 0, 0, 0] = np.arange(len(labels))
        return data_loading.Images("letters", images, labels, images, labels, 3)

    def places(self, images):
        return images[:, 0, 0, 0].tolist()

    @pytest.mark.parametrize(
        ("labels", "count", "expected"),
        [
            ([0, 0, 0, 1, 1, 1, 2, 2, 2], 6, [0, 1, 3, 4, 6, 7]),
            ([0, 0, 0, 1, 1, 1, 2, 2, 2], 4, [0, 1, 3, 6]),
            ([2, 1, 0, 2, 2, 1, 0], 3, [0, 1, 2]),
            # The one image of class 1 is not enough: others fill up.
            ([0, 0, 0, 0, 1, 2, 2, 2], 6, [0, 1, 2, 4, 5, 6]),
        ],
    )
    def test_has_as_many_of_every_class(self, labels, count, expected):
        images = self.images(labels)
        part = images.head(train=count)
        assert self.places(part.train_images) == expected
        np.testing.assert_array_equal(
            part.train_labels, images.train_labels[np.array(expected)]
        )
        assert len(part.test_labels) == len(labels)
        assert part.name == f"letters, first {count}/{len(labels)}"
        assert self.places(images.head(test=count).test_images) == expected

    def test_of_everything_is_everything(self):
        images = self.images([0, 1, 2, 2])
        assert images.head().name == images.head(4, 4).name == "letters"
        assert self.places(images.head(4, 4).train_images) == [0, 1, 2, 3]

    @pytest.mark.parametrize("count", [0, -1, 5])
    def test_of_more_than_there_is_is_refused(self, count):
        with pytest.raises(ValueError, match=f"{count} of the 4 test images"):
            self.images([0, 1, 2, 2]).head(test=count)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"train_images": np.zeros((3, 2, 2), np.uint8)}, "training images are uint8"),
        ({"train_images": np.zeros((3, 2, 2, 1))}, "training images are float64"),
        ({"test_images": np.zeros((3, 2, 3, 1), np.uint8)}, "but test images"),
        ({"test_images": np.zeros((2, 2, 2, 1), np.uint8)}, "2 test images, but 3"),
        ({"test_labels": np.arange(3)}, "test labels are int64"),
        ({"classes": 2}, "training labels go from 0 to 2, but 2 classes"),
        (
            {
                "test_images": np.zeros((0, 2, 2, 1), np.uint8),
                "test_labels": np.zeros(0, np.int32),
            },
            "no test labels",
        ),
    ],
)
def test_images_that_do_not_fit_together_are_refused(change, problem):
    images, labels = np.zeros((3, 2, 2, 1), np.uint8), np.arange(3, dtype=np.int32)
    arguments = {
        "name": "letters",
        "train_images": images,
        "train_labels": labels,
        "test_images": images,
        "test_labels": labels,
        "classes": 3,
    }
    data_loading.Images(**arguments)
    with pytest.raises(ValueError, match=problem):
        data_loading.Images(**arguments | change)


class TestDownload:
    """The libraries are played by modules with what is used of them."""

    def test_from_tensorflow_datasets(self, monkeypatch, tmp_path):
        parts = [(pixels(4, 2, 2, 1), np.arange(4)), (pixels(2, 2, 2, 1), [0, 9])]

        def load_all(name, *, split, batch_size, as_supervised):
            assert (name, split) == ("mnist", ["train", "test"])
            assert batch_size == -1
            assert as_supervised
            return "tensors"

        library = types.SimpleNamespace(
            load=load_all, as_numpy={"tensors": parts}.__getitem__
        )
        monkeypatch.setitem(sys.modules, "tensorflow_datasets", library)
        loaded = load("mnist", tmp_path)
        np.testing.assert_array_equal(loaded.train_images, parts[0][0])
        assert loaded.test_labels.tolist() == [0, 9]
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        ("name", "shape", "columns"),
        [
            ("mnist", (3, 3), ("ylecun/mnist", "image", "label")),
            ("cifar100", (3, 3, 3), ("uoft-cs/cifar100", "img", "fine_label")),
        ],
    )
    def test_from_hugging_face(self, name, shape, columns, monkeypatch):
        place, image, label = columns
        arrays = pixels(2, *shape)
        part = {image: [Image.fromarray(a) for a in arrays], label: [3, 4]}

        def load_dataset(where, split):
            assert (where, split) == (place, ["train", "test"])
            return [part, part]

        library = types.SimpleNamespace(load_dataset=load_dataset)
        monkeypatch.setitem(sys.modules, "datasets", library)
        loaded = load(name, None)
        np.testing.assert_array_equal(loaded.train_images.reshape(arrays.shape), arrays)
        assert loaded.train_images.ndim == 4
        assert loaded.test_labels.tolist() == [3, 4]

    def test_that_fails_is_told_next_to_what_was_looked_for(
        self, monkeypatch, tmp_path
    ):
        def fail(*args, **kwargs):
            raise ConnectionError("no network")

        library = types.SimpleNamespace(load_dataset=fail)
        monkeypatch.setitem(sys.modules, "datasets", library)
        with pytest.raises(MissingData) as error:
            load("cifar10", tmp_path)
        for expected in ("cifar-10-batches-py", "ConnectionError('no network')"):
            assert expected in str(error.value)
        assert "tensorflow_datasets is not installed" in str(error.value)


def test_unpickling_knows_scalars_and_old_bytes():
    pickles = importlib.import_module("data_loading.pickles")
    content = [np.float32(2), b"\xff", {1}, (1j, None, True)]
    for protocol in range(2, 6):
        stored = pickle.dumps(content, protocol=protocol)
        assert pickles.unpickle(stored, "here") == content
    with pytest.raises(BadFile, match="here: bytes in the encoding 'zip'"):
        pickles.unpickle(b"c_codecs\nencode\n(Va\nVzip\ntR.", "here")
    with pytest.raises(BadFile, match="here: refused, because it asks for builtins.ev"):
        pickles.unpickle(b"cbuiltins\neval\n(V1\ntR.", "here")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"edge_values": np.ones(2)}, "edge: rows, columns and values differ"),
        ({"feature_columns": np.array([0, 4])}, "feature columns go from 0 to 4"),
        ({"labels": np.zeros(2, np.int32)}, "2 labels for 3 nodes"),
        ({"labels": np.arange(3, dtype=np.int32)}, "node labels go from 0 to 2"),
        ({"test_nodes": np.array([3])}, "nodes of the split go from 0 to 3"),
        ({"test_nodes": np.array([1])}, "a node is twice"),
    ],
)
def test_graphs_that_do_not_fit_together_are_refused(change, problem):
    three, two = np.arange(3), np.arange(2)
    arguments = {
        "name": "triangle",
        "feature_rows": two,
        "feature_columns": two,
        "feature_values": np.ones(2),
        "nodes": 3,
        "feature_count": 4,
        "edge_rows": three,
        "edge_columns": three,
        "edge_values": np.ones(3),
        "labels": np.array([0, 1, 0], np.int32),
        "classes": 2,
        "train_nodes": three[:1],
        "validation_nodes": three[1:2],
        "test_nodes": three[2:],
    }
    data_loading.Graph(**arguments)
    with pytest.raises(ValueError, match=problem):
        data_loading.Graph(**arguments | change)
