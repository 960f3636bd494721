"""The clock against clocks that tell what they are told, and memory and energy against known amounts."""

import sys
import types

import numpy
import pytest
import torch

from diffbench.errors import is_out_of_memory
from diffbench.machine import laps as timing
from diffbench.machine import load, nvml, peak_memory
from diffbench.results import speed_columns

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


class Clock:
    """A host clock that moves when work says so; `pace` is how much slower the machine is by now."""

    def __init__(self, monkeypatch):
        self.now, self.pace = 0.0, 1.0
        monkeypatch.setattr("diffbench.machine.laps.time.perf_counter", lambda: self.now)

    def work(self, *seconds):
        """Work that takes these times, run by run, and the last from then on."""
        left = list(seconds)

        def run():
            self.now += (left.pop(0) if len(left) > 1 else left[0]) * self.pace
        return run


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


@pytest.mark.parametrize("seconds, laps, settled", [
    ((9.0, 2.0, 2.08, 2.1, 2.0), 4, True), ((1.0,), 3, True), ((1.0, 1.2) * 8, 10, False), ((30.0, 1.0), 1, False), ((11.0, 10.0, 1.0), 2, False),
])
def test_warm_up_ends_when_three_laps_agree_or_it_has_had_its_share(clock, seconds, laps, settled):
    warm = timing.warm_up(clock.work(*seconds), CPU)
    assert len(warm.seconds) == laps and warm.is_settled == settled and warm.runs == 1


def test_work_that_is_short_is_repeated_within_a_lap_and_reported_by_the_run(clock):
    work = clock.work(0.001)
    warm = timing.warm_up(work, CPU)
    assert warm.runs == 20 and warm.seconds == pytest.approx([0.001] * 3)
    start = clock.now
    assert timing.timed(work, warm, 3, CPU).seconds == pytest.approx([0.001] * 3)
    assert clock.now - start == pytest.approx(3 * timing.LAP_SECONDS)
    assert timing.warm_up(lambda: None, CPU).runs <= 20_000, "nothing takes no time, and is not done for ever"


def test_median_and_quartiles_are_those_of_numpy(clock):
    laps = (3.0, 1.0, 4.0, 1.5, 9.0)
    found = timing.timed(clock.work(*laps), timing.Warm(seconds=(1.0,), runs=1), 5, CPU)
    assert found.seconds == laps and found.median == 3.0 and found.quartiles == pytest.approx(numpy.quantile(laps, (0.25, 0.75)))
    assert found.spread == pytest.approx((4.0 - 1.5) / 3.0)


@pytest.mark.parametrize("laps, inside", [((5.0, 1.0, 3.0), (4.0, 0.5, 1.0)), ((4.0, 1.0, 2.0, 9.0), (3.0, 0.1, 0.5, 8.0))])
def test_the_median_laps_parts_add_up_to_the_median(laps, inside):
    found = timing.Timing(seconds=laps, inside=inside)
    outside = timing.Timing(seconds=laps, inside=tuple(a - b for a, b in zip(laps, inside, strict=True)))
    assert found.median_inside + outside.median_inside == found.median
    assert found.median_inside == (1.0 if len(laps) == 3 else 1.75)


def test_a_machine_that_drifts_evenly_changes_no_time_in_units_of_the_anchor(clock):
    """An A/A test without noise: the plain medians differ by a third, those in units of the anchor do not."""
    warm = timing.Warm(seconds=(1.0,), runs=1)
    found = []
    for _ in range(2):
        def run():
            clock.now += 2.0 * clock.pace
            clock.pace += 0.05                            # as much before the middle of a lap as after it

        def anchor():
            clock.now += 0.3 * clock.pace
        found.append(timing.timed(run, warm, 5, CPU, anchor=anchor))
    plain, anchored = (abs(b / a - 1) for a, b in ((found[0].median, found[1].median), (numpy.median(found[0].in_anchors), numpy.median(found[1].in_anchors))))
    assert plain > 0.2 and anchored < 0.01
    assert len(found[0].anchor) == 6, "before, between and after"


@pytest.mark.parametrize(("scatter", "laps"), [(0.0, 5), (0.02, 5), (0.06, range(6, 25)), (0.5, 25)])
def test_laps_that_scatter_are_more(clock, scatter, laps):
    """Until the median is known to a standard error of 1.5 %, five times as many at most."""
    generator = numpy.random.default_rng(0)
    found = timing.timed(lambda: clock.work(float(generator.uniform(1 - scatter, 1 + scatter)))(), timing.Warm(seconds=(1.0,), runs=1), 5, CPU,
                         anchor=clock.work(0.25))
    assert len(found.seconds) in (laps if isinstance(laps, range) else (laps,)) and len(found.anchor) == len(found.seconds) + 1
    assert len(found.seconds) == timing.MOST_LAPS * 5 or found.error_in_anchors <= timing.KNOWN


def test_the_error_of_a_median_is_that_of_repeated_medians():
    """Of 25 normal laps of 10 %: the error said of a timing is, in the mean, the spread of the medians of many."""
    laps = 1 + 0.1 * numpy.random.default_rng(1).standard_normal((2000, 25))
    said = [timing.Timing(seconds=tuple(row), anchor=(1.0,) * 26).error_in_anchors for row in laps]
    assert numpy.mean(said) == pytest.approx(numpy.median(laps, axis=1).std(), rel=0.1)


def test_the_anchor_has_laps_of_a_quarter_and_is_the_same_each_time(clock):
    runs = []
    timing.timed(clock.work(0.4), timing.Warm(seconds=(0.4,), runs=1), 3, CPU, anchor=lambda: (runs.append(1), clock.work(0.016)()))
    assert len(runs) == 3 + 4 * 7, "0.1 s are seven runs of 16 ms"
    from diffbench.machine import anchor

    before = torch.get_rng_state()
    assert torch.equal(anchor.make(CPU)(), anchor.make(CPU)()) and torch.equal(torch.get_rng_state(), before)


def test_a_stopwatch_adds_up_what_is_inside_and_begins_anew_when_taken(clock):
    watch = timing.Stopwatch(CPU)
    inner, outer = clock.work(0.25), clock.work(1.0)

    def run():
        for _ in range(3):
            watched(7)
            outer()
    watched = watch.watch(lambda x: (inner(), x)[1])
    assert watched(7) == 7 and watch.take() == 0.25 and watch.take() == 0
    found = timing.timed(run, timing.Warm(seconds=(3.75,), runs=2), 3, CPU, take=watch.take)
    assert found.inside == pytest.approx([0.75] * 3) and found.seconds == pytest.approx([3.75] * 3), "both of one run, though a lap has two"


def test_on_cuda_the_parts_come_from_events_and_nothing_waits_for_them_before_the_lap_is_over(monkeypatch):
    happened = []

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self, stream):
            happened.append("record")
            self.at = len(happened) * 10.0

        def elapsed_time(self, end):
            assert happened[-1] == "synchronise"
            return end.at - self.at

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: "the stream")
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: happened.append("synchronise"))
    watch = timing.Stopwatch(CUDA)
    call = watch.watch(lambda: None)
    found = timing.timed(lambda: (call(), call()), timing.Warm(seconds=(1.0,), runs=1), 2, CUDA, take=watch.take)
    assert found.inside == (0.02, 0.02), "two calls of 10 ms each"
    assert happened == 2 * ["synchronise", *4 * ["record"], "synchronise"]


def test_the_peak_of_memory_is_that_of_the_work_and_begins_anew():
    megabyte = 2**20
    peak = peak_memory.PeakMemory(CPU)
    if peak.reason:
        pytest.skip(peak.reason)
    for size in (200, 60, 120):
        peak.reset()
        held = numpy.ones((size, megabyte), numpy.uint8)
        del held
        assert size * megabyte <= peak.bytes() + megabyte and peak.bytes() < (size + 30) * megabyte
    kept = numpy.ones((50, megabyte), numpy.uint8)
    peak.reset()
    assert peak.bytes() + megabyte >= kept.nbytes, "what was built before the reset and after the beginning counts"


def test_a_system_that_does_not_tell_its_memory_gives_none_and_a_reason(monkeypatch, tmp_path):
    monkeypatch.setattr(peak_memory, "PROCESS", tmp_path)
    peak = peak_memory.PeakMemory(CPU)
    assert peak.bytes() is None and "the system does not tell the resident memory" in peak.reason
    (tmp_path / "status").write_text("VmRSS:\t  1000 kB\nVmHWM:\t  3000 kB\n")
    (tmp_path / "clear_refs").mkdir()
    peak = peak_memory.PeakMemory(CPU)
    assert peak.bytes() is None and "does not let a process reset its peak" in peak.reason
    (tmp_path / "clear_refs").rmdir()
    peak = peak_memory.PeakMemory(CPU)
    assert peak.bytes() == 2000 * 1024 and (tmp_path / "clear_refs").read_text() == "5"


@pytest.fixture
def gpu(monkeypatch):
    """A GPU that its driver says uses 300 W, as NVML's functions tell it."""
    driver = types.ModuleType("pynvml")
    driver.NVMLError = type("NVMLError", (Exception,), {})
    driver.now, driver.open, driver.asked = 0.0, 0, []
    driver.nvmlInit = lambda: setattr(driver, "open", driver.open + 1)
    driver.nvmlShutdown = lambda: setattr(driver, "open", driver.open - 1)
    driver.nvmlDeviceGetHandleByUUID = lambda uuid: driver.asked.append(uuid) or "handle"
    driver.nvmlDeviceGetTotalEnergyConsumption = lambda handle: int(300e3 * driver.now) + 5_000_000
    driver.nvmlDeviceGetUtilizationRates = lambda handle: types.SimpleNamespace(gpu=37, memory=3)
    monkeypatch.setitem(sys.modules, "pynvml", driver)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: types.SimpleNamespace(uuid="12-34"))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: None)
    monkeypatch.setattr("diffbench.stages.throughput.time.perf_counter", lambda: driver.now)
    return driver


def test_energy_is_the_counters_difference_over_a_window_of_two_seconds(gpu):
    from diffbench.stages.throughput import _Meter

    def run():
        gpu.now += 0.75
    meter = _Meter(CUDA, 3)
    assert meter.joules(run) == pytest.approx(0.75 * 300) and gpu.now == 2.25 and meter.not_measured == {}
    assert set(gpu.asked) == {"GPU-12-34"} and gpu.open == 0


def test_what_the_driver_does_not_say_is_none_with_its_reason(gpu, monkeypatch):
    from diffbench.stages.throughput import _Meter

    def refuse(handle):
        raise gpu.NVMLError("Not Supported")
    monkeypatch.setattr(gpu, "nvmlDeviceGetTotalEnergyConsumption", refuse)
    meter = _Meter(CUDA, 3)
    assert meter.joules(lambda: None) is None and meter.not_measured == {"energy_joules": "the driver does not say: Not Supported"} and gpu.open == 0
    assert nvml.busy_share(CUDA) == 0.37
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(nvml.NotReported, match=r"pip install 'diffbench\[energy\]'"):
        nvml.energy_joules(CUDA)
    with pytest.raises(nvml.NotReported, match="a CPU's counters need rights"):
        nvml.energy_joules(CPU)


def test_the_load_of_others_counts_processes_and_other_guests_and_not_ourselves(monkeypatch, tmp_path):
    stat = tmp_path / "stat"

    def tell(user, steal):
        stat.write_text(f"cpu  9 9 9 9 9 9 9 9 0 0\ncpu0 {user} 0 0 500 0 0 0 {steal} 0 0\ncpu7 999999 0 0 0 0 0 0 0 0 0\n")
    monkeypatch.setattr(load, "Path", lambda path: stat)
    monkeypatch.setattr(load.os, "sched_getaffinity", lambda pid: {0})
    monkeypatch.setattr(load.os, "sysconf", lambda name: 100)
    now = iter((10.0, 14.0))
    monkeypatch.setattr("diffbench.machine.load.time.perf_counter", lambda: next(now))
    own = iter((1.0, 1.5))
    monkeypatch.setattr(load, "_own_seconds", lambda: next(own))
    tell(1000, 0)
    others = load.OtherLoad()
    tell(1200, 50)
    assert others.cores() == pytest.approx((2.0 + 0.5 - 0.5) / 4.0)


@pytest.mark.parametrize("changes, said", [
    ({}, []), ({"spread": 0.11}, ["its laps spread by 11 % of their median"]), ({"others": 0.6}, ["others kept 0.6 of 4 cores busy"]),
    ({"others": 0.6, "cores": 64}, []), ({"others": 3.3, "cores": 64}, ["others kept 3.3 of 64 cores busy"]), ({"others": 1.5, "device": "cuda"}, []),
    ({"others": 2.1, "device": "cuda"}, ["others kept 2.1 of 4 cores busy"]), ({"gpu": 0.5}, ["the GPU was busy for 50 % of the second before"]), ({"others": None}, []),
    ({"disturbance": "train of RUN, pid 7 had the device too"}, ["train of RUN, pid 7 had the device too"]),
])
def test_a_timing_is_noisy_where_spread_or_load_exceed_their_bounds(changes, said):
    made = {"spread": 0.09, "others": 0.4, "cores": 4, "device": "cpu", "gpu": None, "disturbance": ""} | changes
    facts = {**made, "load": {"cores_of_others": made["others"], "gpu_busy_before": made["gpu"], "disturbance": made["disturbance"]}}
    assert speed_columns.noise(facts) == said


def test_out_of_memory_is_known_by_the_words_of_each_who_says_it():
    said = (torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), MemoryError(),
            RuntimeError("[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory"))
    assert all(map(is_out_of_memory, said)) and not is_out_of_memory(RuntimeError("the sky fell"))
