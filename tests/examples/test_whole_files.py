"""Files and folders that examples write to: full disks, kills, two writers."""

import dataclasses
import errno
import json
import resource

import digits
import pytest

import whole_files
from experiments import results
from experiments.run import Run
from imagenet_training.config import Config
from imagenet_training.metrics import Metrics

RUN = Run("tiny", "digits", "lenet", "dense", 0.0, 0, 4, 1e-2)


@pytest.fixture
def small_disk():
    """No file may grow beyond 4 KiB: the system refuses to write on."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


class TestWriting:
    def test_takes_the_place_of_the_old_file(self, tmp_path):
        path = tmp_path / "a.json"
        for text in ("old", "new, naïve"):
            whole_files.write(path, text)
            assert path.read_text("utf-8") == text
        assert list(tmp_path.iterdir()) == [path]

    def test_on_a_full_disk_keeps_the_old_file(self, small_disk, tmp_path):
        path = tmp_path / "a.json"
        whole_files.write(path, "old")
        with pytest.raises(OSError, match=r"could not be written: .*a\.json") as raised:
            whole_files.write(path, 5000 * "x")
        assert raised.value.errno == errno.EFBIG
        assert path.read_text() == "old"
        assert list(tmp_path.iterdir()) == [path]

    @pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
    def test_that_is_stopped_keeps_the_old_file(self, error, tmp_path):
        path = tmp_path / "a.json"
        whole_files.write(path, "old")
        with pytest.raises(error), whole_files.writing(path) as stream:
            stream.write(b"half of it")
            stream.flush()
            # A kill here would leave the old file too.
            assert path.read_text() == "old"
            raise error
        assert list(tmp_path.iterdir()) == [path]

    def test_of_a_result_on_a_full_disk(self, small_disk, tmp_path):
        path = results.write(tmp_path, RUN, {"curves": {}, "final": {}})
        before = path.read_text()
        with pytest.raises(OSError, match="could not be written"):
            results.write(tmp_path, RUN, {"curves": {"a": [1.5] * 2000}, "final": {}})
        assert path.read_text() == before
        assert list(tmp_path.iterdir()) == [path]

    def test_of_metrics_that_are_taken_back_keeps_them(self, small_disk, tmp_path):
        file = tmp_path / "metrics.jsonl"
        resource.setrlimit(
            resource.RLIMIT_FSIZE, (10**6, resource.getrlimit(resource.RLIMIT_FSIZE)[1])
        )
        lines = [json.dumps({"step": step, "kind": "train"}) for step in range(300)]
        file.write_text("\n".join(lines) + "\n")
        resource.setrlimit(
            resource.RLIMIT_FSIZE, (4096, resource.getrlimit(resource.RLIMIT_FSIZE)[1])
        )
        with pytest.raises(OSError, match=r"written: .*metrics\.jsonl"):
            Metrics(Config(output=tmp_path), 290, 300)
        assert file.read_text().splitlines() == lines


class TestFolders:
    def test_have_one_writer(self, tmp_path):
        with (
            whole_files.alone(tmp_path),
            pytest.raises(whole_files.Busy, match=f"writes to {tmp_path}. Wait"),
            whole_files.alone(tmp_path),
        ):
            pass
        with whole_files.alone(tmp_path):  # it is free again
            pass

    def test_of_the_digits_have_one_writer(self, tmp_path):
        config = digits.Config(output=tmp_path)
        with whole_files.alone(tmp_path), pytest.raises(whole_files.Busy):
            digits.main(config)

    def test_of_imagenet_have_one_writer(self, tmp_path):
        from imagenet_training.loop import run

        with whole_files.alone(tmp_path), pytest.raises(whole_files.Busy):
            run(Config(output=tmp_path, synthetic=True))


class TestResults:
    @pytest.mark.parametrize(
        "content", [b"", b'{"format": 1, "run', b"\xff\xfe", b"[]", b"\0" * 100]
    )
    def test_that_are_damaged_are_named(self, content, tmp_path):
        path = results.write(tmp_path, RUN, {"curves": {}, "final": {}})
        whole = path.read_bytes()
        path.write_bytes(content)
        with pytest.raises(results.BadResult, match=str(path)):
            results.finished(tmp_path, [RUN])
        lines = tmp_path / "all.jsonl"
        lines.write_bytes(whole + content + b"\n")
        with pytest.raises(results.BadResult, match=r"all\.jsonl:2 "):
            results.read(lines)

    def test_of_two_writers_are_both_there(self, tmp_path):
        other = dataclasses.replace(RUN, seed=1)
        for run in (RUN, other, RUN):
            results.write(tmp_path, run, {"curves": {}, "final": {}})
        assert results.finished(tmp_path, [RUN, other]) == {RUN.name, other.name}
