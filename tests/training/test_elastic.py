"""How many workers there are when nodes come and go: a number that shares the batch, more once there is room."""

from __future__ import annotations

import re
from contextlib import contextmanager
from threading import Event
from types import SimpleNamespace

import pytest

from boneage_ray.errors import BoneageError, UsageError
from boneage_ray.training import elastic
from boneage_ray.training.board import _Board
from boneage_ray.training.elastic import Group, sizes


class Cluster(Group):
    """A group on a cluster with room for so many workers, until they are taken away from it."""

    room = 0

    @contextmanager
    def _asked_for(self, number):
        waits.append(number)
        yield SimpleNamespace(wait=lambda seconds: number <= Cluster.room)


class Board:
    """A board whose methods are called as those of a Ray actor."""

    def __init__(self, stepping=True):
        self.board = _Board()
        self.board.stepping = stepping
        self.pause, self.state = SimpleNamespace(remote=self.paused), SimpleNamespace(remote=self.board.state)
        self.asked = Event()

    def paused(self, after_epoch):
        self.board.pause(after_epoch)
        self.asked.set()


@pytest.fixture(autouse=True)
def _fresh(monkeypatch):
    global waits
    waits, Cluster.room = [], 0
    monkeypatch.setattr("ray.get", lambda answer: answer)
    monkeypatch.setattr(elastic, "GROW_SECONDS", 0.0)
    monkeypatch.setattr(elastic, "SURE_SECONDS", 0.1)
    monkeypatch.setattr(elastic, "SETTLE_SECONDS", 0.0)
    monkeypatch.setenv("BONEAGE_WAIT_SECONDS", "1")


@pytest.mark.parametrize(
    ("batch", "most", "least", "expected"),
    [(16, 4, 1, (4, 2, 1)), (16, 16, 4, (16, 8, 4)), (30, 6, 2, (6, 5, 3, 2)), (8, 2, 2, (2,))],
)
def test_only_numbers_that_share_the_batch_are_taken(batch, most, least, expected):
    assert sizes(batch, most, least) == expected


def test_a_smallest_number_that_cannot_be_is_refused():
    with pytest.raises(UsageError, match="--min-workers 3 is more than --workers 2"):
        sizes(16, 2, 3)
    message = "--min-workers 3 cannot share batches of 16, 4 for each of 4 workers, equally: give one of 1, 2, 4"
    with pytest.raises(UsageError, match=re.escape(message)):
        sizes(16, 4, 3)


def test_the_largest_number_that_there_is_room_for_is_chosen(capsys):
    group = Cluster((4, 2, 1), {"CPU": 0.75}, Board())
    Cluster.room = 3
    assert group.choose() == 2
    assert waits == [4, 2]
    assert "there is room for 2 of 4 workers" in capsys.readouterr().err
    Cluster.room = 9
    assert group.choose() == 4
    assert capsys.readouterr().err == ""
    Cluster.room = 0
    message = "no room for 1 worker(s) of {'CPU': 0.75} after 1 s (BONEAGE_WAIT_SECONDS)"
    with pytest.raises(BoneageError, match=re.escape(message)):
        group.choose()
    assert "waiting for room for 1 worker(s), {'CPU': 0.75} each" in capsys.readouterr().err


def test_a_run_that_is_asked_to_stop_waits_for_no_room():
    group = Cluster((2, 1), {"CPU": 0.75}, Board())
    group.board.board.stop()
    assert group.choose() == 0


def test_a_number_that_never_changes_asks_for_nothing():
    group = Cluster((3,), {"CPU": 1.0}, Board())
    assert (group.changes, group.choose()) == (False, 3)
    with group.growing(3, True):
        pass
    assert (waits, group.board.asked.is_set()) == ([], False)


@pytest.mark.parametrize("in_mid_epoch", [True, False])
def test_workers_end_for_more_of_them_once_there_is_room(in_mid_epoch):
    group, Cluster.room = Cluster((4, 2, 1), {"CPU": 0.75}, Board()), 1
    board = group.board.board
    with group.growing(1, in_mid_epoch):
        assert group.board.asked.wait(20)
    assert waits == [1], "one more, for two: not three more at once"
    assert board.step(0.5, 1.0) is in_mid_epoch
    board.epoch({"epoch": 1})
    assert board.step(0.5, 1.0) is True
    board.begin()
    assert board.state() == (False, False)
    assert board.step(0.5, 1.0) is False, "what one group was asked is not asked of the next"
    assert board.state() == (True, False)


@pytest.mark.parametrize("lacks", ["room", "a first step", "time, for the workers have ended"])
def test_nothing_is_asked_of_workers(lacks, monkeypatch):
    group, Cluster.room = Cluster((2, 1), {"GPU": 1.0}, Board(stepping=lacks != "a first step")), int(lacks != "room")
    if lacks.startswith("time"):
        monkeypatch.setattr(elastic, "SURE_SECONDS", 20.0)  # the room may be what they gave back
    with group.growing(1, True):
        assert not group.board.asked.wait(0.2)
    assert not group.board.asked.wait(0.2)
    assert group.board.board.step(0.5, 1.0) is False
