"""What a worker hears between two steps."""

from __future__ import annotations

import re

import pytest

from boneage_ray.errors import MismatchError
from boneage_ray.runtime.runs import versions
from boneage_ray.training import driver, notice
from boneage_ray.training.driver import check_packages, code_versions
from boneage_ray.training.notice import Notice, Notices


@pytest.fixture
def clock(monkeypatch):
    """A clock that only the test moves."""
    now = [0.0]
    monkeypatch.setattr(notice.time, "monotonic", lambda: now[0])
    return now


def test_a_node_that_leaves_is_looked_for_now_and_then_and_told_once(clock):
    answers = [False, True]
    notices = Notices(0, 1, lambda: answers.pop(0))
    heard = []
    for clock[0] in (1.0, 5.0, 9.0, 10.0, 20.0, 30.0):
        heard.append(notices.heard(False))
    assert heard == [Notice.NONE, Notice.NONE, Notice.NONE, Notice.LEAVING, Notice.NONE, Notice.NONE]
    assert answers == []
    assert notices.heard(True) is Notice.STOP


def test_only_the_first_worker_decides_when_all_look(clock):
    notices = Notices(1, 1, lambda: True)
    clock[0] = 60.0
    assert notices.heard(False) is Notice.NONE


def test_a_node_with_other_packages_is_refused_by_name():
    here = code_versions()
    check_packages(here)
    with pytest.raises(
        MismatchError, match=rf"node \S+ has other packages: torch {re.escape(here['torch'])} \(the command has 1.0\);"
    ):
        check_packages(here | {"torch": "1.0"})


def test_builds_of_one_version_are_alike(monkeypatch):
    build = versions()
    monkeypatch.setattr(driver, "versions", lambda: build | {"torch": "9.1+cu130"})
    assert code_versions()["torch"] == "9.1"
