from __future__ import annotations

import os
import statistics

import pytest

from codeact.efficiency.racing.host import fingerprint, race_cores, usable_cpus
from codeact.efficiency.racing.noise import (
    MAX_CV,
    HostTooNoisyError,
    Noise,
    quietest,
    require_quiet,
    variation,
)

pytestmark = pytest.mark.alone


def test_variation_is_sample_deviation_over_mean():
    seconds = [0.05, 0.052, 0.049, 0.061]
    assert variation(seconds) == pytest.approx(statistics.stdev(seconds) / statistics.mean(seconds))


@pytest.mark.parametrize("seconds", [[], [0.05], [0.0, 0.0]])
def test_variation_needs_times(seconds):
    with pytest.raises(ValueError, match="two positive times"):
        variation(seconds)


def test_the_first_quiet_calibration_ends_the_attempts():
    tries = iter([[0.05, 0.07], [0.05, 0.0505], [0.05, 0.05]])
    noise = quietest(lambda: next(tries), "before", 3)
    assert noise.cpu_seconds == (0.05, 0.0505)
    assert noise.attempts == 2
    assert noise.quiet
    assert next(tries) == [0.05, 0.05]  # not asked for


def test_without_a_quiet_one_the_best_is_kept():
    tries = iter([[0.05, 0.09], [0.05, 0.06], [0.05, 0.08]])
    noise = quietest(lambda: next(tries), "after", 3)
    assert noise.cpu_seconds == (0.05, 0.06)
    assert noise.when == "after"
    assert not noise.quiet


def test_a_noisy_host_is_refused_and_said_to_be_so(caplog):
    noisy = Noise("before", 0.071, (0.05, 0.06), 3.5)
    with pytest.raises(HostTooNoisyError, match=r"varied by 7\.1%.*load 3\.5"):
        require_quiet(noisy, allow_noise=False)
    assert not caplog.records
    require_quiet(noisy, allow_noise=True)
    assert "host too noisy" in caplog.text
    require_quiet(Noise("before", MAX_CV, (0.05, 0.05), 0.0), allow_noise=False)


def test_measured_runs_leave_the_first_core_to_others(monkeypatch):
    # Four threads of two cores, numbered as kernels do: 0 and 2 are siblings, 1 and 3.
    siblings = {0: "0,2", 1: "1,3", 2: "0,2", 3: "1,3"}

    def read(path):
        return siblings[int(path.parts[-3].removeprefix("cpu"))]

    monkeypatch.setattr("codeact.efficiency.racing.host._read", read)
    assert race_cores([0, 1, 2, 3]) == [1]
    siblings.update({0: "0", 1: "1", 2: "2", 3: "3"})
    assert race_cores([0, 1, 2, 3]) == [1, 2, 3]
    siblings.update({0: "0-1", 1: "0-1"})
    assert race_cores([0, 1]) == [1]
    assert race_cores([0]) == [0]


def test_the_fingerprint_is_of_this_machine():
    host = fingerprint(sandbox="bwrap", bubblewrap="0.8.0", tools={"python": "Python 3"})
    assert host == fingerprint(sandbox="bwrap", bubblewrap="0.8.0", tools={"python": "Python 3"})
    assert host.kernel == os.uname().release
    assert host.num_cpus == len(usable_cpus()) == len(os.sched_getaffinity(0))
    assert host.cpu_model
    assert host.tools == {"python": "Python 3"}


def test_calibration_in_the_sandbox(sandbox):
    from codeact.efficiency.racing.noise import LOOP_SECONDS, NUM_TRIES, calibrate

    noise = calibrate(sandbox, when="before", attempts=1)
    assert len(noise.cpu_seconds) == NUM_TRIES
    # A loop sized on a busy machine may come out at half or three times what was asked for.
    middle = statistics.median(noise.cpu_seconds)
    assert LOOP_SECONDS / 3 < middle < 4 * LOOP_SECONDS
    assert noise.cv == pytest.approx(variation(noise.cpu_seconds))
