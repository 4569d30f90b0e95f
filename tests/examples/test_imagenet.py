"""examples/imagenet.py: the data, the run, and a run that is killed and goes on."""

import dataclasses
import io
import json
import math
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from flax import nnx
from PIL import Image

import swd_jax
from imagenet_training import images, pipeline, placement
from imagenet_training.checkpoints import (
    BadCheckpoint,
    Checkpoints,
    OtherRun,
    by_path,
)
from imagenet_training.config import Config, reference_configs
from imagenet_training.data import find_data
from imagenet_training.folder import BadFolder, find_images, find_validation_images
from imagenet_training.metrics import Metrics, MissingTensorBoard
from imagenet_training.optimizers import learning_rate, make_optimizer, pruning_target
from imagenet_training.trainer import Trainer, make_network
from tests.helpers import quickly

PROGRAM = Path(__file__).parents[2] / "examples" / "imagenet.py"
CLASSES = ("n01", "n02", "n03", "n04")


def jpeg(pixels):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=95)
    return stream.getvalue()


def write_images(root, count=6, classes=CLASSES):
    """Each class has a colour of its own, and noise on it."""
    generator = np.random.default_rng(0)
    for label, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for number in range(count):
            pixels = generator.integers(0, 80, (40, 48, 3), np.uint8)
            pixels[..., label % 3] += np.uint8(60 + 40 * label)
            (root / name / f"{name}_{number}.JPEG").write_bytes(jpeg(pixels))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """24 training images of four classes, and 8 to evaluate on. Never written to."""
    root = tmp_path_factory.mktemp("imagenet")
    write_images(root / "train")
    write_images(root / "val", count=2)
    return root


@pytest.fixture
def own_data(tmp_path):
    """The same, to be changed."""
    root = tmp_path / "imagenet"
    write_images(root / "train")
    write_images(root / "val", count=2)
    return root


class TestFolder:
    def test_labels_are_in_the_order_of_the_class_names(self, data):
        folder = find_images("data", data / "train")
        assert folder.classes == CLASSES
        assert len(folder) == 24
        assert folder.labels == (0,) * 6 + (1,) * 6 + (2,) * 6 + (3,) * 6
        assert folder.path(7) == data / "train/n02/n02_1.JPEG"

    def test_validation_images_have_the_labels_of_training(self, own_data):
        for file in (own_data / "val/n01").iterdir():
            file.unlink()
        (own_data / "val/n01").rmdir()
        found = find_validation_images(own_data, None, CLASSES)
        assert found.labels == (1, 1, 2, 2, 3, 3)

    def test_fingerprint_changes_with_the_names_alone(self, own_data):
        before = find_images("data", own_data / "train").fingerprint()
        file = own_data / "train/n01/n01_0.JPEG"
        file.write_bytes(b"broken")
        assert find_images("data", own_data / "train").fingerprint() == before
        file.rename(file.with_name("other.JPEG"))
        assert find_images("data", own_data / "train").fingerprint() != before

    def test_missing_folder(self, tmp_path):
        with pytest.raises(BadFolder, match=r"data: there is no folder .*/nowhere"):
            find_images("data", tmp_path / "nowhere")

    def test_no_class_folders(self, own_data):
        with pytest.raises(BadFolder, match=r"data: .*n01 has no class folders"):
            find_images("data", own_data / "train/n01")

    def test_empty_class(self, own_data):
        (own_data / "train/n99").mkdir()
        (own_data / "train/n99/readme.txt").write_text("no image")
        with pytest.raises(BadFolder, match=r"data: no image .* in n99 of .*remove"):
            find_images("data", own_data / "train")

    def test_unknown_class(self, own_data):
        with pytest.raises(BadFolder, match=r"val_folder: .* has n04, a class that"):
            find_images("val_folder", own_data / "val", CLASSES[:3])

    def test_no_validation_folder(self, own_data):
        (own_data / "val").rename(own_data / "elsewhere")
        with pytest.raises(BadFolder, match=r"data: .* no folder val .*--val-folder"):
            find_validation_images(own_data, None, CLASSES)
        found = find_validation_images(own_data, own_data / "elsewhere", CLASSES)
        assert len(found) == 8


def halves(height, width):
    """Red on the left, blue on the right."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : width // 2, 0] = 255
    pixels[:, width // 2 :, 2] = 255
    return jpeg(pixels)


class TestImages:
    def test_evaluation_sees_the_middle(self):
        # Of 512x256 pixels the middle 224x224, which are 144 to 368 across.
        assert images.centre_box(512, 256) == (144, 16, 368, 240)
        seen = images.evaluation_image(halves(256, 512), 224)
        assert seen.shape == (224, 224, 3)
        assert seen.dtype == np.uint8
        assert seen[100, :100].mean(0) == pytest.approx([254, 0, 0], abs=2)
        assert seen[100, 124:].mean(0) == pytest.approx([0, 0, 254], abs=2)

    def test_decoding_at_a_part_of_the_size_changes_little(self):
        """1024 pixels across are decoded at a quarter, and look the same."""
        content = halves(1024, 1024)
        seen = images.evaluation_image(content, 128).astype(int)
        with Image.open(io.BytesIO(content)) as whole:
            expected = whole.convert("RGB").resize(
                (128, 128), Image.Resampling.BILINEAR, images.centre_box(1024, 1024)
            )
        assert np.abs(seen - np.asarray(expected, int)).mean() < 1

    def test_random_crops_have_the_area_and_the_ratio(self):
        generator = np.random.default_rng(0)
        boxes = np.array(
            [images.random_box(500, 400, generator) for _ in range(2000)], float
        )
        width, height = (boxes[:, 2:] - boxes[:, :2]).T
        area, ratio = width * height / (500 * 400), width / height
        assert boxes[:, :2].min() >= 0
        assert boxes[:, 2].max() <= 500
        assert boxes[:, 3].max() <= 400
        assert 0.079 < area.min() < 0.1
        assert area.max() > 0.9
        assert 0.74 < ratio.min() < 0.78
        assert 1.3 < ratio.max() < 1.35

    @pytest.mark.parametrize("size", [(1000, 10), (10, 1000), (1, 1)])
    def test_extreme_images_are_cropped_in_the_middle(self, size):
        left, upper, right, lower = images.random_box(*size, np.random.default_rng(0))
        assert 0 <= left < right <= size[0]
        assert 0 <= upper < lower <= size[1]

    def test_half_of_the_training_images_are_mirrored(self):
        generator = np.random.default_rng(0)
        content, mirrored = halves(64, 64), 0
        for _ in range(100):
            seen = images.training_image(content, 16, generator).astype(int)
            assert seen.shape == (16, 16, 3)
            mirrored += seen[:, 0, 2].mean() > seen[:, -1, 2].mean()
        # Crops that show one side only count as not mirrored.
        assert 25 < mirrored < 65

    @pytest.mark.parametrize(
        "mode", ["L", "RGBA", "CMYK", "P", "I;16"], ids=lambda mode: mode.strip(";")
    )
    def test_every_kind_of_image_becomes_rgb(self, mode):
        kind = {"CMYK": "TIFF"}.get(mode, "PNG")
        stream = io.BytesIO()
        Image.new(mode, (20, 30)).save(stream, kind)
        assert images.evaluation_image(stream.getvalue(), 8).shape == (8, 8, 3)

    @pytest.mark.parametrize("kept", [0, 10, 300, -200])
    def test_a_part_of_an_image_is_a_bad_image(self, kept):
        content = halves(200, 200)[:kept]
        with pytest.raises(images.BadImage):
            images.evaluation_image(content, 64)
        with pytest.raises(images.BadImage):
            images.training_image(content, 64, np.random.default_rng(0))


class TestPipeline:
    def training(self, data, tmp_path, **changed):
        arguments = {
            "resolution": 16,
            "batch_size": 4,
            "seed": 0,
            "bad_images": pipeline.BadImageList(tmp_path / "bad_images.txt"),
        }
        folder = find_images("data", data / "train")
        return pipeline.training_batches(folder, **arguments | changed)

    def test_an_epoch_has_every_image_once(self, data, tmp_path):
        batches = self.training(data, tmp_path)
        orders = []
        for epoch in (0, 1):
            labels = [batches[6 * epoch + i]["labels"] for i in range(6)]
            assert sorted(np.concatenate(labels)) == sorted(list(range(4)) * 6)
            orders.append(np.concatenate(labels).tolist())
        assert orders[0] != orders[1]
        assert batches[0]["images"].shape == (4, 16, 16, 3)
        assert batches[0]["images"].dtype == np.uint8
        # The second epoch has other crops too.
        pictures = {batches[i]["images"].tobytes() for i in range(24)}
        assert len(pictures) == 24

    def test_depends_on_the_seed_alone(self, data, tmp_path):
        first, again = (self.training(data, tmp_path)[5]["images"] for _ in range(2))
        np.testing.assert_array_equal(first, again)
        other = self.training(data, tmp_path, seed=1)[5]["images"]
        assert (first != other).any()

    def test_processes_divide_the_same_batches(self, data, tmp_path):
        whole = self.training(data, tmp_path)
        parts = [
            self.training(data, tmp_path, share=pipeline.Share(i, 2)) for i in (0, 1)
        ]
        for number in (0, 3, 100):  # 24 images: batch 100 is of a later epoch
            batch = np.concatenate([part[number]["images"] for part in parts])
            expected = whole[number]["images"]
            assert {i.tobytes() for i in batch} == {i.tobytes() for i in expected}

    @pytest.mark.parametrize("start", [0, 7])
    def test_goes_on_from_any_batch(self, start, data, tmp_path):
        batches = self.training(data, tmp_path)
        made = pipeline.iterate(batches, start=start, threads=3, workers=0)
        for number in range(start, start + 9):
            np.testing.assert_array_equal(
                next(made)["images"], batches[number]["images"]
            )
        made.close()

    def test_evaluation_sees_every_image_once(self, data, tmp_path):
        batches = pipeline.evaluation_batches(
            find_images("data", data / "val"),
            resolution=16,
            batch_size=3,
            bad_images=pipeline.BadImageList(tmp_path / "bad_images.txt"),
        )
        made = list(pipeline.iterate(batches, start=0, threads=2, workers=0))
        labels = np.concatenate([batch["labels"] for batch in made])
        weights = np.concatenate([batch["weights"] for batch in made])
        assert labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 0]
        assert weights.tolist() == [1] * 8 + [0]

    def test_a_broken_image_is_reported_once_and_skipped(
        self, own_data, tmp_path, capfd
    ):
        broken = own_data / "train/n02/n02_3.JPEG"
        broken.write_bytes(broken.read_bytes()[:200])
        batches = self.training(own_data, tmp_path)
        labels = np.concatenate([batches[i]["labels"] for i in range(12)])
        # The next image of the folder, of the same class, has taken its place.
        assert sorted(labels) == sorted(list(range(4)) * 12)
        reported = capfd.readouterr().err.splitlines()
        assert len(reported) == 1
        assert f"Skipped, as it cannot be decoded: {broken}: " in reported[0]
        listed = (tmp_path / "bad_images.txt").read_text().splitlines()
        assert [line.split("\t")[0] for line in listed] == [str(broken)]
        # And so it is after a restart.
        again = self.training(own_data, tmp_path)
        for number in range(12):
            np.testing.assert_array_equal(
                batches[number]["images"], again[number]["images"]
            )
        assert capfd.readouterr().err == ""

    def test_a_broken_validation_image_has_no_weight(self, own_data, tmp_path):
        (own_data / "val/n01/n01_1.JPEG").write_bytes(b"no image")
        batches = pipeline.evaluation_batches(
            find_images("data", own_data / "val"),
            resolution=16,
            batch_size=4,
            bad_images=pipeline.BadImageList(tmp_path / "bad_images.txt"),
        )
        assert batches[0]["weights"].tolist() == [1, 0, 1, 1]

    def test_nothing_but_broken_images_stop_the_run(self, own_data, tmp_path):
        for file in (own_data / "train").glob("*/*"):
            file.write_bytes(b"no image")
        with pytest.raises(images.BadImage, match=r"data: 24 images in a row .*listed"):
            self.training(own_data, tmp_path)[0]

    def test_a_file_that_cannot_be_read_stops_the_run(self, own_data, tmp_path):
        batches = self.training(own_data, tmp_path)
        for file in (own_data / "train/n03").iterdir():
            file.unlink()
        with pytest.raises(OSError, match=r"data: .*n03_.*cannot be read.*ENOENT"):
            for number in range(6):
                batches[number]


class TestConfig:
    @pytest.mark.parametrize(
        ("changed", "message"),
        [
            ({"sparsity": 1.0}, r"sparsity must be in \[0, 1\), got 1.0"),
            ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
            ({"learning_rate": 0.0}, "learning_rate must be greater than 0"),
            ({"depth": 34}, "depth must be 18 or 50, or 6 n"),
            ({"rise": 1.5}, "rise must be in"),
            ({"a_min": 0.0}, "a_min"),
            ({"process_count": 2}, "add --distributed"),
        ],
    )
    def test_errors_name_the_argument(self, changed, message):
        with pytest.raises(ValueError, match=message):
            Config(**changed)

    def test_reference_configs(self):
        configs = {name: config for name, (_, config) in reference_configs().items()}
        assert {config.sparsity for config in configs.values()} == {
            0.8,
            0.9,
            0.95,
            0.975,
            0.98,
        }
        assert {config.epochs for config in configs.values()} == {90, 100}
        # 1,281,167 images: what people count for batches of 256 and 1,024.
        assert configs["paper"].total_steps(1_281_167) == 90 * 5004
        assert configs["epochs-100-sparsity-95"].total_steps(1_281_167) == 100 * 1251

    def test_paper_learning_rate_falls_by_ten_at_each_third(self):
        config = reference_configs()["paper"][1]
        rate = learning_rate(config, steps=90, steps_per_epoch=1)
        found = [float(rate(step)) for step in (0, 29, 30, 59, 60, 89)]
        assert found == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])

    def test_warmup_and_cosine(self):
        config = Config(batch_size=512, warmup_epochs=2)
        rate = learning_rate(config, steps=100, steps_per_epoch=10)
        # 0.1 for 256 images is 0.2 for 512, reached in 20 steps.
        assert [float(rate(step)) for step in (0, 9, 19, 20)] == pytest.approx(
            [0.01, 0.1, 0.2, 0.2]
        )
        assert float(rate(60)) == pytest.approx(0.1)  # the middle of 20 to 100
        assert float(rate(100)) == pytest.approx(0, abs=1e-9)

    @pytest.mark.parametrize("name", sorted(reference_configs()))
    @pytest.mark.filterwarnings("ignore:.*multiplier:UserWarning")
    def test_the_multiplier_of_reference_configs_is_hardly_bounded(self, name):
        config = reference_configs()[name][1]
        steps = config.total_steps(1_281_167)
        rate = learning_rate(config, steps, 1251)
        at = np.linspace(0, steps - 1, 301).astype(np.int32)
        growth = swd_jax.exponential_growth(config.a_min, config.a_max, steps)
        bounded = swd_jax.bound_multiplier(
            growth,
            learning_rate=rate,
            weight_decay=config.selective_decay,
            momentum=config.momentum,
            nesterov=config.nesterov,
        )
        shares = np.array(jax.vmap(bounded)(at) / jax.vmap(growth)(at))
        assert shares.min() > 0.7
        assert np.mean(shares < 1) < 0.2
        assert shares[-1] == pytest.approx(1)

    def test_dense_is_the_base_optimizer_alone(self):
        params = {"kernel": jnp.ones((4, 4)), "bias": jnp.ones(4)}
        state = make_optimizer(Config(sparsity=0), 10, 1).init(params)
        assert optax.tree_utils.tree_get(state, "multiplier") is None
        assert pruning_target(Config(sparsity=0), 10).sparsity == 0

    @pytest.mark.parametrize(
        ("optimizer", "rate"), [("sgd", 0.1), ("lars", 5.0), ("lamb", 0.01)]
    )
    @pytest.mark.filterwarnings("ignore:.*multiplier:UserWarning")
    def test_every_optimizer_shrinks_what_will_be_pruned(self, optimizer, rate):
        config = Config(
            optimizer=optimizer,
            learning_rate=rate,
            rise=0.0,
            sparsity=0.5,
            warmup_epochs=0,
            selective_decay=5e-4,
            nesterov=False,
        )
        params = {"kernel": jnp.linspace(-1.0, 1.0, 64).reshape(8, 8)}
        transform = make_optimizer(config, steps=100, steps_per_epoch=1)
        gradients = jax.tree.map(jnp.zeros_like, params)

        @jax.jit
        def step(params, state):
            updates, state = transform.update(gradients, state, params)
            return optax.apply_updates(params, updates), state

        state = transform.init(params)
        for _ in range(100):
            params, state = step(params, state)
        smallest, largest = np.split(np.sort(np.abs(params["kernel"].ravel())), 2)
        assert smallest.max() < 0.2 * largest.min()


class TestPlacement:
    @pytest.mark.parametrize(
        ("shape", "axes"),
        [
            ((3, 3, 64, 128), (None, None, None, "devices")),
            ((7, 7, 3, 64), (None, None, None, "devices")),
            ((2048, 1000), ("devices", None)),
            ((64,), ("devices",)),
            ((1, 1, 256, 64), (None, None, "devices", None)),
            ((10,), ()),
            ((), ()),
        ],
    )
    def test_fsdp_divides_the_longest_axis_that_it_can(self, shape, axes):
        assert placement.fsdp_axes(shape, 8) == axes

    def test_batch_size_must_fit_the_devices(self, monkeypatch):
        monkeypatch.setattr(jax, "device_count", lambda: 8)
        placement.check_batch_size(64)
        with pytest.raises(ValueError, match="batch_size .* 8 .* got 100: .*96 or 104"):
            placement.check_batch_size(100)
        with pytest.raises(ValueError, match="got 5: try --batch-size 8$"):
            placement.check_batch_size(5)


def small(**changed):
    settings = {
        "depth": 8,
        "width": 2,
        "resolution": 16,
        "batch_size": 8,
        "bfloat16": False,
        "steps": 4,
    }
    return Config(**settings | changed)


@pytest.fixture(scope="module")
def trainer():
    """Compiled once for all tests. Nothing is compiled that no test uses."""
    return Trainer(small(average=0.75), placement.make_mesh(), 10, 4, 1)


class TestTrainer:
    def test_bfloat16_computes_in_it_and_keeps_float32_weights(self):
        def run(pixels):
            network = make_network(small(bfloat16=True), 4, nnx.Rngs(0))
            return network(pixels), nnx.state(network)

        pixels = jnp.zeros((1, 16, 16, 3))
        logits, state = jax.eval_shape(run, pixels)
        assert logits.dtype == jnp.float32
        dtypes = {leaf.dtype for leaf in jax.tree.leaves(state)}
        assert dtypes == {jnp.dtype("float32")}
        text = str(jax.make_jaxpr(lambda pixels: run(pixels)[0])(pixels))
        convolutions = [line for line in text.splitlines() if "conv_general" in line]
        assert len(convolutions) == 9
        assert all("bf16" in line for line in convolutions)

    def test_evaluation_counts_what_has_weight(self, trainer):
        network = trainer.start().network
        generator = np.random.default_rng(0)
        pixels = generator.integers(0, 256, (8, 16, 16, 3), np.uint8)

        @jax.jit
        def forward(network, pixels):
            model = nnx.merge(trainer.definition, *network, copy=True)
            model.eval()
            return model(pixels)

        normal = (pixels - np.array([123.675, 116.28, 103.53])) / np.array(
            [58.395, 57.12, 57.375]
        )
        logits = np.float64(forward(network, jnp.float32(normal)))
        order = np.argsort(-logits, axis=1)
        # Right, the fifth best, the sixth best and wrong, each with weight and without.
        ranks = [0, 4, 5, 9, 0, 4, 5, 9]
        labels = np.array([order[i, rank] for i, rank in enumerate(ranks)], np.int32)
        weights = np.array([1, 1, 1, 1, 0, 0, 0, 0], np.float32)
        batch = {"images": pixels, "labels": labels, "weights": weights}
        sums = trainer.evaluate(network, placement.to_devices(trainer.mesh, batch))
        assert (sums.images, sums.top1, sums.top5) == (4, 1, 2)
        shifted = logits - logits.max(1, keepdims=True)
        log_p = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
        expected = -sum(log_p[i, labels[i]] for i in range(4))
        assert float(sums.loss) == pytest.approx(expected, rel=1e-4)

    def test_average_follows_the_network(self, trainer):
        state = trainer.start()
        before = jax.device_get(state.average.params)
        batch = {
            "images": np.zeros((8, 16, 16, 3), np.uint8),
            "labels": np.zeros(8, np.int32),
        }
        state, _ = trainer.step(state, placement.to_devices(trainer.mesh, batch))
        for old, new, average in zip(
            *map(jax.tree.leaves, (before, state.network.params, state.average.params)),
            strict=True,
        ):
            expected = 0.75 * old + 0.25 * np.asarray(new)
            np.testing.assert_allclose(average, expected, rtol=1e-5, atol=1e-7)


class TestCheckpoints:
    def test_another_run_is_refused(self, tmp_path):
        config = small(output=tmp_path)
        Checkpoints(config, "data").close()
        Checkpoints(dataclasses.replace(config, workers=3), "data").close()
        with pytest.raises(OtherRun, match=r"batch_size: .* with 8, and 16 .*--output"):
            Checkpoints(dataclasses.replace(config, batch_size=16), "data")

    def test_other_images_are_refused(self, trainer, tmp_path):
        config = small(output=tmp_path)
        checkpoints = Checkpoints(config, "24 images")
        assert checkpoints.restore(trainer.abstract, trainer.shardings) is None
        state = trainer.start()
        checkpoints.save(3, state)
        checkpoints.close()
        checkpoints = Checkpoints(config, "24 images")
        restored = checkpoints.restore(trainer.abstract, trainer.shardings)
        assert jax.tree.structure(restored) == jax.tree.structure(state)
        jax.tree.map(np.testing.assert_array_equal, restored, state)
        checkpoints.close()
        checkpoints = Checkpoints(config, "25 images")
        with pytest.raises(OtherRun, match="data: .* 24 images, now there are 25"):
            checkpoints.restore(trainer.abstract, trainer.shardings)
        checkpoints.close()

    # Orbax leaves coroutines behind that failed.
    @pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
    def test_that_are_damaged_are_named(self, trainer, tmp_path):
        config, state = small(output=tmp_path), trainer.start()
        checkpoints = Checkpoints(config, "data")
        for step in (3, 6):
            checkpoints.save(step, state)
        checkpoints.close()

        def restored():
            checkpoints = Checkpoints(config, "data")
            try:
                return checkpoints.restore(trainer.abstract, trainer.shardings)
            finally:
                checkpoints.close()

        folder = tmp_path / "checkpoints/6"
        data = (folder / "state/d").iterdir()
        for path in (*data, folder / "position/metadata"):
            whole = path.read_bytes()
            path.write_bytes(whole[:-20])
            with pytest.raises(BadCheckpoint, match=f"{folder} is .* on from step 3"):
                restored()
            path.write_bytes(whole)
        jax.tree.map(np.testing.assert_array_equal, restored(), state)
        shutil.rmtree(tmp_path / "checkpoints/3")
        (folder / "position/metadata").unlink()
        with pytest.raises(BadCheckpoint, match="goes on from the beginning"):
            restored()

    def test_whose_numbers_have_changed_are_named(self, trainer, tmp_path):
        config, state = small(output=tmp_path), trainer.start()
        checkpoints = Checkpoints(config, "data")
        checkpoints.save(3, state)
        checkpoints.close()
        position = tmp_path / "checkpoints/3/position/metadata"
        content = json.loads(position.read_text())
        # The bits of float32 numbers as NumPy adds them up.
        name = "network/params/stem/conv/kernel"
        kernel = np.asarray(by_path(state)[name])
        total = kernel.view(np.uint32).sum(dtype=np.uint64) % 2**32
        assert content["bit_sums"][name] == total
        content["bit_sums"][name] ^= 1  # as if the kernel were another
        position.write_text(json.dumps(content))
        checkpoints = Checkpoints(config, "data")
        with pytest.raises(BadCheckpoint, match="its numbers have changed. Delete it"):
            checkpoints.restore(trainer.abstract, trainer.shardings)
        checkpoints.close()

    @pytest.mark.parametrize("content", ["", "{", "[1]", "\0" * 9])
    def test_whose_config_is_damaged_are_named(self, content, tmp_path):
        (tmp_path / "config.json").write_text(content)
        with pytest.raises(OtherRun, match=r"config\.json is damaged"):
            Checkpoints(small(output=tmp_path), "data")


class TestMetrics:
    def test_what_came_after_the_checkpoint_is_taken_back(self, tmp_path):
        config = small(output=tmp_path)
        file = tmp_path / "metrics.jsonl"
        lines = [json.dumps({"step": step, "kind": "train"}) for step in (2, 4, 6)]
        file.write_text("\n".join(lines) + '\n{"step": 7, "ki')
        metrics = Metrics(config, 4, 10)
        metrics.write(6, "train", {"loss": jnp.float32(1.5)})
        metrics.close()
        read = [json.loads(line) for line in file.read_text().splitlines()]
        assert [line["step"] for line in read] == [2, 4, 6]
        assert read[-1] == {"step": 6, "kind": "train", "loss": 1.5}

    def test_tensorboard(self, tmp_path):
        metrics = Metrics(small(output=tmp_path, tensorboard=True), 0, 10)
        metrics.write(1, "train", {"loss": 1.5})
        metrics.close()
        (events,) = (tmp_path / "tensorboard").iterdir()
        assert b"train/loss" in events.read_bytes()

    def test_tensorboard_that_is_not_installed(self, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "tensorboardX", None)
        with pytest.raises(MissingTensorBoard, match="pip install tensorboardX"):
            Metrics(small(output=tmp_path, tensorboard=True), 0, 10)


class TestFindData:
    def test_no_folder_given(self):
        with pytest.raises(BadFolder, match=r"data: no folder is given.*--data DIR"):
            find_data(small())

    def test_a_folder_that_is_not_there(self, tmp_path):
        with pytest.raises(BadFolder, match=r"data: there is no folder .*nowhere"):
            find_data(small(data=tmp_path / "nowhere"))

    def test_fewer_images_than_a_batch_has(self, data, tmp_path):
        with pytest.raises(ValueError, match=r"batch_size .* the 24 images .* got 32"):
            find_data(small(data=data, output=tmp_path, batch_size=32))


ARGUMENTS = (
    "epochs-90-sparsity-80 --depth 8 --width 2 --resolution 16 --batch-size 8 "
    "--threads 2 --log-every 1 --steps 12 --checkpoint-every 2"
).split()


@pytest.fixture(scope="module", autouse=True)
def programs_compile_once(tmp_path_factory):
    """The second run of a program takes what the first compiled."""
    with pytest.MonkeyPatch.context() as patch:
        cache = tmp_path_factory.mktemp("compiled")
        patch.setenv("JAX_COMPILATION_CACHE_DIR", str(cache))
        yield


def environment(devices):
    return os.environ | {
        "JAX_PLATFORMS": "cpu",
        "PYTHONWARNINGS": "error",
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} "
        f"--xla_force_host_platform_device_count={devices}",
    }


def command(data, output, *more):
    return [
        *[sys.executable, str(PROGRAM), *ARGUMENTS],
        *["--data", str(data), "--output", str(output), *more],
    ]


def finish(arguments, devices=8):
    done = subprocess.run(
        arguments,
        env=environment(devices),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done


def steps_written(output):
    file = output / "metrics.jsonl"
    return len(file.read_text().splitlines()) if file.exists() else 0


def kill_after(arguments, output, lines, devices=8):
    """SIGKILL, wherever it is when so many lines of metrics are written."""
    kill_when(lambda: steps_written(output) >= lines, arguments, devices)


def kill_when(condition, arguments, devices=8):
    process = subprocess.Popen(
        arguments,
        env=environment(devices),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while not condition():
            assert process.poll() is None, "the run ended before it could be killed"
            time.sleep(0.001)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def final_state(output, step=12):
    """As NumPy arrays, whatever devices they were on."""
    place = output.resolve() / f"checkpoints/{step}/state"
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
        names = checkpointer.metadata(place).item_metadata.tree
        plain = dict.fromkeys(names, ocp.RestoreArgs(restore_type=np.ndarray))
        return checkpointer.restore(place, ocp.args.PyTreeRestore(restore_args=plain))


def assert_same_bits(output, other):
    one, two = final_state(output), final_state(other)
    assert one.keys() == two.keys()
    for name, leaf in one.items():
        assert np.asarray(leaf).tobytes() == np.asarray(two[name]).tobytes(), name


def test_trains_prunes_and_goes_on_after_a_kill(own_data, tmp_path, monkeypatch):
    """The quick one of the end-to-end tests: it compares no bits."""
    monkeypatch.setenv("XLA_FLAGS", quickly.flags())
    broken = own_data / "train/n02/n02_3.JPEG"
    broken.write_bytes(b"no image")
    output = tmp_path / "run"
    kill_after(command(own_data, output, "--mesh", "fsdp"), output, lines=5)
    done = finish(command(own_data, output, "--mesh", "fsdp"))
    assert "Goes on from step" in done.stdout
    assert "target sparsity 0.8" in done.stdout
    assert str(broken) in (output / "bad_images-0.txt").read_text()
    result = json.loads((output / "result.json").read_text())
    assert result["steps"] == 12
    assert result["pruned"]["images"] == 8
    assert 0 <= result["pruned"]["top1"] <= result["pruned"]["top5"] <= 100
    assert result["obtained_sparsity"] == pytest.approx(0.8, abs=0.01)
    lines = [
        json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()
    ]
    steps = [line["step"] for line in lines if line["kind"] == "train"]
    assert steps == sorted(set(steps))
    assert all(math.isfinite(line["loss"]) for line in lines)
    with ocp.StandardCheckpointer() as checkpointer:
        pruned = checkpointer.restore(output.resolve() / "pruned")
    assert "params/stem/conv/kernel" in pruned
    kernels = [np.asarray(a) for name, a in pruned.items() if "kernel" in name]
    zeros = sum(int((kernel == 0).sum()) for kernel in kernels)
    # Of all weights together, as many as the target says.
    assert zeros == math.floor(0.8 * sum(kernel.size for kernel in kernels))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (["--batch-size", "12"], "batch_size must be a multiple .* 8 .* 8 or 16"),
        (["--val-folder", "nowhere"], "val_folder: there is no folder nowhere"),
    ],
)
def test_errors_are_one_line(changed, message, data, tmp_path):
    done = subprocess.run(
        command(data, tmp_path / "run", *changed),
        env=environment(8),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    # Before it, Grain may say what it misses in an old jaxlib.
    *logged, line = done.stderr.splitlines()
    assert all(other.startswith("WARNING:absl:Grain") for other in logged), logged
    assert re.search(message, line)


@pytest.mark.slow
@pytest.mark.parametrize("mesh", ["data", "fsdp"])
def test_a_killed_run_ends_with_the_same_bits(mesh, own_data, tmp_path):
    (own_data / "train/n01/n01_2.JPEG").write_bytes(b"no image")
    arguments = ["--mesh", mesh, "--average", "0.9"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    finish(command(own_data, whole, *arguments))
    for lines in (3, 7, 10):
        kill_after(command(own_data, killed, *arguments), killed, lines)
    finish(command(own_data, killed, *arguments))
    assert_same_bits(whole, killed)
    results = [
        json.loads((output / "result.json").read_text()) for output in (whole, killed)
    ]
    assert results[0] == results[1]
    # Finished: the same command evaluates again, and changes nothing.
    finish(command(own_data, killed, *arguments))
    assert_same_bits(whole, killed)


@pytest.mark.slow
def test_a_run_that_is_killed_while_it_writes_ends_with_the_same_bits(data, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    finish(command(data, whole))

    # The names that Orbax gives to what it has not finished.
    for pattern in ("checkpoints/6.*tmp*/state.*tmp*/*", "pruned.*tmp*"):
        kill_when(lambda p=pattern: any(killed.glob(p)), command(data, killed))
    finish(command(data, killed))
    assert_same_bits(whole, killed)
    results = [json.loads((f / "result.json").read_text()) for f in (whole, killed)]
    assert results[0] == results[1]
    # Nothing is left of what was half written.
    assert sorted(path.name for path in whole.iterdir()) == sorted(
        path.name for path in killed.iterdir()
    )


@pytest.mark.slow
def test_workers_change_nothing(data, tmp_path):
    threads, workers = tmp_path / "threads", tmp_path / "workers"
    finish(command(data, threads))
    finish(command(data, workers, "--workers", "2"))
    assert_same_bits(threads, workers)


def free_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


@pytest.mark.slow
@pytest.mark.parametrize("mesh", ["data", "fsdp"])
def test_two_processes_train_on_the_same_batches_as_one(mesh, data, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    arguments = ["--mesh", mesh, "--learning-rate", "0.01", "--no-bfloat16"]
    finish(command(data, one, *arguments))
    arguments += ["--distributed", "--coordinator", f"127.0.0.1:{free_port()}"]
    processes = []
    for index in ("0", "1"):
        place = ["--process-count", "2", "--process-index", index]
        processes.append(
            subprocess.Popen(
                command(data, two, *arguments, *place),
                env=environment(4),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    try:
        printed = [process.communicate(timeout=400)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], printed
    assert "top-1" in printed[0]
    assert "top-1" not in printed[1]  # the first one speaks for both
    # Their batches are divided differently, so that sums are rounded differently.
    expected, found = final_state(one), final_state(two)
    for name in (name for name in expected if name.startswith("network")):
        np.testing.assert_allclose(
            found[name], expected[name], rtol=1e-2, atol=1e-3, err_msg=name
        )


@pytest.mark.slow
def test_synthetic(tmp_path):
    arguments = command("unused", tmp_path / "run", "--synthetic", "--tensorboard")
    done = finish(arguments)
    assert "noise" in done.stdout
    assert "pruned" not in json.loads((tmp_path / "run/result.json").read_text())
