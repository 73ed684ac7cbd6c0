"""Decoding in child processes: same answers as in this process, and a file that ends its process costs only itself."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from pictures import encoded, picture

from boneage_ray.decoding.radiograph import Radiograph
from boneage_ray.errors import BoneageError, InputProblem, UsageError
from boneage_ray.phantoms.hand import hand_phantom
from boneage_ray.preparation import isolated_child
from boneage_ray.preparation.isolated import DecoderPool, Limits
from boneage_ray.preparation.prepare import ImageConfig, PreparedImage, prepare_image

CONFIG = ImageConfig(size=64)
GOOD = encoded(picture())
PLANTED = '''
import ctypes, os, signal, sys, time
from pathlib import Path
from boneage_ray.errors import InputProblem
from boneage_ray.preparation.prepare import prepare_image

def act(data, config):
    """Does what the file says."""
    if data.startswith(b"once:"):
        Path(data[5:].decode()).touch(exist_ok=False) if not Path(data[5:].decode()).exists() else None
        marked = Path(data[5:].decode() + ".seen")
        if not marked.exists():
            marked.touch()
            ctypes.string_at(0)
        return prepare_image(GOOD(), config)
    if data == b"segfault":
        ctypes.string_at(0)
    if data == b"abort":
        os.abort()
    if data == b"kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if data == b"exit":
        os._exit(3)
    if data == b"hoard":
        held = []
        while True:
            held.append(bytes(1000))
    if data == b"numpy":
        import numpy as np
        np.ones(5 << 30, np.uint8)
    if data == b"opencv":
        import cv2, numpy as np
        try:
            cv2.resize(np.zeros((10, 10), np.uint8), (60000, 60000))
        except cv2.error as error:
            raise InputProblem("decode", "unreadable", "as a decoder words it") from error
    if data == b"sleep":
        time.sleep(1000)
    if data == b"print":
        os.write(1, b"noise" * 100), os.write(2, b"noise" * 100), print("noise")
        data = GOOD()
    if data == b"keep":
        import builtins
        builtins.kept = bytes(150 << 20)
        data = GOOD()
    if data == b"lie":
        os.write(max(int(n) for n in os.listdir("/proc/self/fd") if n != "0" and os.path.exists("/proc/self/fd/" + n)), b"x" * 50)
    if data == b"thumbnail":
        problem = InputProblem("quality", "blank", "a \\udcff b", status="rejected")
        problem.thumbnail = b"a small picture"
        raise problem
    if data == b"look":
        secrets = sorted(name for name in os.environ if name.startswith("AWS"))
        heavy = sorted({"torch", "ray", "pyarrow", "sklearn"} & set(sys.modules))
        raise InputProblem("decode", "unreadable", f"{secrets} {heavy}")
    return prepare_image(data, config)

def GOOD():
    return Path(os.environ["PYTHON_TEST_GOOD"]).read_bytes()
'''


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """A folder with the module `planted_decoder`, in the path of child processes."""
    folder = tmp_path_factory.mktemp("planted")
    (folder / "planted_decoder.py").write_text(PLANTED)
    (folder / "good.png").write_bytes(GOOD)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder))
        patch.setenv("PYTHON_TEST_GOOD", str(folder / "good.png"))
        patch.setenv("AWS_SECRET_ACCESS_KEY", "not for decoders")
        yield folder


@pytest.fixture(scope="module")
def pool(planted):
    """One child that acts as its files say, with 256 MB and 1 second for each."""
    with DecoderPool(CONFIG, 1, Limits(256, 1.0), _target="planted_decoder:act") as opened:
        yield opened


def problem_of(pool, data):
    with pytest.raises(InputProblem) as caught:
        pool.prepare(data)
    return caught.value


def same(one, other):
    """Two prepared images with every field equal."""
    plain = [
        dataclasses.asdict(dataclasses.replace(p, source=dataclasses.replace(p.source, pixels=None)))
        for p in (one, other)
    ]
    images = [(p.pixels, p.source.pixels) for p in (one, other)]
    return {**plain[0], "pixels": 0} == {**plain[1], "pixels": 0} and np.array_equal(*images)


def test_what_comes_back_is_what_prepare_gives():
    direct = prepare_image(GOOD, CONFIG)
    with DecoderPool(CONFIG) as pool:
        isolated = pool.prepare(GOOD)
        assert same(isolated, direct)
        assert isolated.pixels.dtype == np.uint8
        assert isolated.pixels.flags.writeable
        for damaged in (b"", b"no picture", GOOD[:500], encoded(np.zeros((100, 100), np.uint8))):
            with pytest.raises(InputProblem) as expected:
                prepare_image(damaged, CONFIG)
            told = problem_of(pool, damaged)
            assert (told.args, told.thumbnail) == (expected.value.args, expected.value.thumbnail)
        assert pool.counts.files == 5
        assert pool.counts.deaths == 0
        assert 30 < pool.counts.peak_mb < 200


def test_every_field_has_its_place_in_an_answer():
    def names(kind):
        return {field.name for field in dataclasses.fields(kind)} - {"pixels", "mask"}  # raw bytes, not JSON

    assert set(isolated_child.PreparedFields.model_fields) == names(PreparedImage)
    assert set(isolated_child.SourceFields.model_fields) == names(Radiograph)


def test_masks_travel_there_and_back():
    phantom = hand_phantom(3, 96, "F", 200)
    data, mask_data = encoded(phantom.image), encoded(phantom.mask)
    config = ImageConfig(size=64, mask="file")
    with DecoderPool(config) as opened:
        first, again = opened.prepare(data, mask_data), opened.prepare(data, mask_data)
        for nothing, told in ((None, "no mask file"), (b"", "truncated"), (data[:-9], "cannot be read")):
            with pytest.raises(InputProblem, match=told) as caught:
                opened.prepare(data, nothing)
            assert (caught.value.step, caught.value.reason) == ("mask", "no_mask")
        assert opened.prepare(data, mask_data).pixel_sha256 == first.pixel_sha256
    direct = prepare_image(data, config, mask_data)
    for made in (first, again):
        assert np.array_equal(made.mask, direct.mask)
        assert np.array_equal(made.pixels, direct.pixels)


def test_masks_found_without_a_file_come_back_too():
    data = encoded(hand_phantom(3, 96, "F", 200).image)
    config = ImageConfig(size=64, mask="hand")
    with DecoderPool(config) as opened:
        assert np.array_equal(opened.prepare(data).mask, prepare_image(data, config).mask)


@pytest.mark.parametrize(
    ("file", "reason", "message"),
    [
        (b"segfault", "unreadable", "the decoder process ended by SIGSEGV on this file"),
        (b"abort", "unreadable", "the decoder process ended by SIGABRT on this file"),
        (b"exit", "internal_error", "the decoder process ended with exit code 3 on this file"),
        (b"kill", "too_large", "decoding needs more than 256 MB"),
        (b"sleep", "unreadable", "decoding did not end within 1 s"),
    ],
)
def test_a_file_that_ends_its_process_costs_that_file(pool, file, reason, message):
    before = pool.counts.deaths
    told = problem_of(pool, file)
    assert (told.step, told.reason, told.message, told.status) == ("decode", reason, message, "failed")
    assert pool.counts.deaths == before + (1 if file == b"sleep" else 2)  # a second try, but not of what hangs
    assert same(pool.prepare(GOOD), prepare_image(GOOD, CONFIG))


@pytest.mark.parametrize("file", [b"hoard", b"numpy", b"opencv", bytes(103 << 20)])
def test_too_much_memory_costs_that_file(pool, file):
    before = pool.counts.deaths
    told = problem_of(pool, file)
    assert (told.step, told.reason, told.message) == ("decode", "too_large", "decoding needs more than 256 MB")
    assert pool.counts.deaths == before  # told by the child itself
    assert same(pool.prepare(GOOD), prepare_image(GOOD, CONFIG))
    assert pool.counts.peak_mb < 256 + 64  # the limit, and libraries mapped from disk


def test_a_death_that_does_not_come_again_costs_nothing(pool, planted):
    assert same(pool.prepare(b"once:" + str(planted / "mark").encode()), prepare_image(GOOD, CONFIG))


def test_what_libraries_print_does_not_reach_the_answers(pool, capfd):
    assert same(pool.prepare(b"print"), prepare_image(GOOD, CONFIG))
    assert capfd.readouterr() == ("", "")


def test_a_process_that_keeps_memory_is_replaced(pool):
    before = pool.counts.replaced
    pool.prepare(b"keep")
    assert pool.counts.replaced == before + 1
    pool.prepare(GOOD)
    assert pool.counts.replaced == before + 1


def test_an_answer_that_makes_no_sense_is_not_believed(pool):
    told = problem_of(pool, b"lie")
    assert told.reason == "internal_error"
    assert "invalid answer" in told.message
    assert same(pool.prepare(GOOD), prepare_image(GOOD, CONFIG))


def test_thumbnail_and_damaged_text_come_back(pool):
    told = problem_of(pool, b"thumbnail")
    assert told.args == ("quality", "blank", "a ? b", "rejected")
    assert told.thumbnail == b"a small picture"


def test_a_child_is_lean_and_knows_no_keys(pool):
    assert problem_of(pool, b"look").message == "[] []"


def test_threads_share_the_children(planted):
    wrong = []
    expected = {seed: prepare_image(encoded(picture(seed=seed)), CONFIG) for seed in range(4)}

    def work(seed):
        data = encoded(picture(seed=seed))
        for k in range(20):
            if k == 10 and seed == 0:
                wrong.extend([] if problem_of(pool, b"segfault").reason == "unreadable" else ["segfault"])
            if not same(pool.prepare(data), expected[seed]):
                wrong.append(seed)

    with DecoderPool(CONFIG, 2, Limits(256, 20), _target="planted_decoder:act") as pool:
        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []
        assert pool.counts.files == 80
        assert pool.counts.deaths == 2


def test_a_pool_outlives_the_thread_that_made_it():
    made = []
    maker = threading.Thread(target=lambda: made.append(DecoderPool(CONFIG)))
    maker.start()
    maker.join()
    with made[0] as pool:
        pool.prepare(GOOD)
        time.sleep(0.1)
        pool.prepare(GOOD)
        assert pool.counts.deaths == 0


def test_a_process_that_cannot_start_is_an_error_of_the_program(planted):
    (planted / "broken_decoder.py").write_text("raise ImportError('libfoo.so.1: cannot open shared object file')")
    with DecoderPool(CONFIG, _target="broken_decoder:prepare") as pool:
        with pytest.raises(BoneageError) as caught:
            pool.prepare(GOOD)
        assert str(caught.value) == (
            "the decoder process does not start: ImportError: libfoo.so.1: cannot open shared object file"
        )
        with pytest.raises(BoneageError, match="libfoo"):
            pool.prepare(GOOD)


def test_closing_ends_the_children_and_the_pool():
    others = set(children_of(os.getpid()))
    pool = DecoderPool(CONFIG, 2)
    pool.prepare(GOOD)
    assert len(set(children_of(os.getpid())) - others) == 2
    pool.close()
    assert set(children_of(os.getpid())) == others
    with pytest.raises(BoneageError, match="the decoder pool is closed"):
        pool.prepare(GOOD)


def test_closing_ends_a_file_in_work(planted):
    pool = DecoderPool(CONFIG, 1, Limits(256, 60), _target="planted_decoder:act")
    told = []

    def work():
        try:
            pool.prepare(b"sleep")
        except BoneageError as error:
            told.append(str(error))

    thread = threading.Thread(target=work)
    thread.start()
    time.sleep(0.5)
    pool.close()
    thread.join(timeout=5)
    assert told == ["the decoder pool is closed"]


@pytest.mark.parametrize("file", ["good.png", "sleep"])
def test_children_end_with_a_parent_that_is_killed(planted, file):
    code = f"""
import sys
from pathlib import Path
from boneage_ray.preparation.isolated import DecoderPool, Limits
from boneage_ray.preparation.prepare import ImageConfig
pool = DecoderPool(ImageConfig(size=64), 1, _target="planted_decoder:act")
pool.prepare(Path({str(planted / "good.png")!r}).read_bytes())
print("ready", flush=True)
pool.prepare(b"sleep") if {file == "sleep"} else sys.stdin.read()
"""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], **pipes, cwd=Path(__file__).parents[2]) as parent:
        assert parent.stdout.readline() == b"ready\n"
        time.sleep(0.2)
        (child,) = children_of(parent.pid)
        parent.send_signal(signal.SIGKILL)
    psutil.wait_procs([child], timeout=5)
    assert not child.is_running()


def children_of(pid):
    """The decoder processes that are children of this process."""
    return [p for p in psutil.Process(pid).children() if "isolated_child" in " ".join(p.cmdline())]


def test_limits_come_from_the_environment(monkeypatch):
    monkeypatch.delenv("BONEAGE_DECODER_MB", raising=False)
    monkeypatch.delenv("BONEAGE_DECODER_SECONDS", raising=False)
    assert Limits.from_environment() == Limits(900, 60.0)
    monkeypatch.setenv("BONEAGE_DECODER_MB", "512")
    monkeypatch.setenv("BONEAGE_DECODER_SECONDS", "2.5")
    assert Limits.from_environment() == Limits(512, 2.5)
    monkeypatch.setenv("BONEAGE_DECODER_MB", "much")
    with pytest.raises(UsageError, match="BONEAGE_DECODER_MB=much: a number of MiB above 0 is needed"):
        Limits.from_environment()
    monkeypatch.setenv("BONEAGE_DECODER_MB", "100")
    with pytest.raises(UsageError, match="100 MB are too few for a decoder process; give at least 256"):
        Limits.from_environment()
