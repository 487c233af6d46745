"""devices: discovery of this machine, reservations, simulated devices, calibration."""

from __future__ import annotations

import subprocess
import sys
import types
from pathlib import Path

import pytest

from devices.calibrate import calibrate
from devices.calibration import Calibration, Measured, host_of, keep, kept, machine_of
from devices.cpu import Cpu, hardware, threads, usable_cores, usable_memory
from devices.edge import is_edge
from devices.gpu import Card, Gpu, find_gpus
from devices.inventory import Inventory, discover
from devices.kernel import Engine, card, matmul, processor, triad
from devices.simulated import Behaviour, Simulated
from protocol.errors import Unavailable
from protocol.profile import DeviceProfile, LinkProfile, WorkerProfile
from protocol.resource import Resources

GIB = 1024**3


def test_this_machine_is_found_and_fits_its_own_profile() -> None:
    found = discover()
    capacity = found.capacity()
    assert capacity.cpu >= 1
    assert 0 < capacity.memory <= usable_memory()
    assert capacity.disk > 0
    profile = WorkerProfile(devices=found.profile(), capacity=capacity)
    assert profile.has("cpu")
    assert profile.has("edge") is found.edge
    assert profile.has("gpu") is bool(find_gpus())


def test_what_is_free_on_the_disk_is_said_roughly(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for free in (79 * GIB, 79 * GIB - 123_456_789, 15, 0):
        monkeypatch.setattr("devices.cpu.shutil.disk_usage", lambda _, free=free: types.SimpleNamespace(free=free))
        found.append(Cpu().disk)
    assert found == [72 * GIB, 72 * GIB, 15, 0]


def test_several_workers_on_one_machine_split_it() -> None:
    whole, half = discover().capacity(), discover(share=0.5).capacity()
    assert half.cpu == whole.cpu / 2
    assert abs(half.memory - whole.memory / 2) <= 1


def test_container_limits_count(tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    (tmp_path / "memory.max").write_text("1048576\n")
    assert usable_cores(tmp_path) == 1
    assert usable_memory(tmp_path) == 1048576
    (tmp_path / "cpu.max").write_text("max 100000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert usable_cores(tmp_path) == usable_cores(tmp_path / "none")
    assert usable_memory(tmp_path) == usable_memory(tmp_path / "none")


@pytest.mark.parametrize(
    ("cores", "memory", "machine", "system", "edge"),
    [
        (64, 256 * GIB, "x86_64", "Linux", False),
        (2, GIB, "x86_64", "Linux", True),
        (4, 4 * GIB, "aarch64", "Linux", True),
        (4, 8 * GIB, "aarch64", "Linux", False),
        (8, 4 * GIB, "aarch64", "Linux", False),
        (4, 4 * GIB, "x86_64", "Linux", False),
        (4, 4 * GIB, "arm64", "Darwin", False),
        (1, GIB // 2, "armv7l", "Linux", True),
    ],
)
def test_edge_is_a_matter_of_size(cores: int, memory: int, machine: str, system: str, edge: bool) -> None:
    assert is_edge(cores, memory, machine, system) is edge


def test_an_edge_machine_still_runs_cpu_skills() -> None:
    found = discover(cores=2, memory=GIB)
    assert found.edge
    assert [one.kind for one in found.profile() if not one.simulated][:2] == ["cpu", "edge"]
    assert found.capacity().cpu == 2


@pytest.mark.parametrize(
    ("real", "gpu", "vram", "memory"),
    [(2, 0, 0, [8, 24]), (2, 1, 0, [8]), (2, 0, 20, [10, 10]), (0, 2, 16, [8, 8]), (1, 2, 0, [8, 0]), (0, 0, 9, [])],
)
def test_declared_cards_replace_the_found_ones(real: int, gpu: float, vram: int, memory: list[int]) -> None:
    cards = [Card(3, "A", 8 * GIB), Card(5, "B", 24 * GIB)][:real]
    found = Inventory((Cpu(), Gpu(cards)) if cards else (Cpu(),)).declared(gpu, vram * GIB)
    assert [one.memory for one in found.profile() if one.kind == "gpu"] == [size * GIB for size in memory]
    assert (found.capacity().gpu, found.capacity().vram) == (len(memory), sum(memory) * GIB)


def test_a_process_sees_the_cards_it_was_dealt_by_the_numbers_that_drivers_know() -> None:
    gpu = Gpu([Card(3, "A", 8 * GIB), Card(5, "B", 24 * GIB)])
    assert gpu.environment((1,))["CUDA_VISIBLE_DEVICES"] == "5"
    assert gpu.environment((1, 0))["CUDA_VISIBLE_DEVICES"] == "5,3"


def test_numeric_libraries_are_kept_to_the_cores_of_a_slot() -> None:
    assert threads(1.5)["OMP_NUM_THREADS"] == "2"


def test_no_gpu_binding_means_no_gpu() -> None:
    code = "import sys; sys.modules['pynvml'] = None; from devices.gpu import find_gpus; print(find_gpus())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "()"


class _Nvml(types.ModuleType):
    """NVML as its binding shows it: two cards, the second one broken."""

    class NVMLError(Exception): ...

    def nvmlInit(self) -> None: ...
    def nvmlShutdown(self) -> None: ...

    def nvmlDeviceGetCount(self) -> int:
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        if index == 1:
            raise self.NVMLError("fallen off the bus")
        return index

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> types.SimpleNamespace:
        return types.SimpleNamespace(total=8 * GIB, free=3 * GIB)

    def nvmlDeviceGetName(self, handle: int) -> bytes:
        return b"Card"

    def nvmlDeviceGetUUID(self, handle: int) -> str:
        return "GPU-1"

    NVML_TEMPERATURE_THRESHOLD_SLOWDOWN = 1

    def nvmlDeviceGetPowerManagementLimit(self, handle: int) -> int:
        return 350_000

    def nvmlDeviceGetCudaComputeCapability(self, handle: int) -> tuple[int, int]:
        return 9, 0

    def nvmlDeviceGetTemperatureThreshold(self, handle: int, threshold: int) -> int:
        raise self.NVMLError("not supported")


def test_cards_are_found_through_nvml_and_a_broken_one_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", _Nvml("pynvml"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert find_gpus() == (Card(0, "Card", 8 * GIB, "GPU-1", 350.0, ("sm_90",)),)
    assert find_gpus()[0].free() == 3 * GIB
    found = discover()
    assert found.capacity().gpu == 1.0
    assert found.capacity().vram == 8 * GIB
    assert found.gpu is not None
    (gpu,) = [one for one in found.profile() if one.kind == "gpu"]
    assert (gpu.watts, gpu.features, gpu.speed > 1, gpu.calibrated) == (350.0, ("sm_90",), True, False)


@pytest.mark.parametrize(("given", "cards"), [("0", 1), ("GPU-1", 1), ("1", 0), ("", 0)])
def test_cards_that_this_process_was_not_given_are_left_alone(
    monkeypatch: pytest.MonkeyPatch, given: str, cards: int
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", _Nvml("pynvml"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    assert len(find_gpus()) == cards


def test_a_simulated_device_repeats_by_seed_whatever_the_order() -> None:
    behaviour = Behaviour(speed=4.0, spread=0.3, failure=0.3, slow=0.1, link=LinkProfile(1e6, 0.01))
    one, two = Simulated(7, behaviour=behaviour), Simulated(7, behaviour=behaviour)
    names = [f"r1/t{index}#1" for index in range(500)]
    durations = {name: one.duration_s(1.0, name) for name in names}
    fails = [one.fails(name) for name in names]
    assert {name: two.duration_s(1.0, name) for name in reversed(names)} == durations
    assert [two.fails(name) for name in names] == fails
    assert Simulated(8, behaviour=behaviour).duration_s(1.0, names[0]) != durations[names[0]]
    assert 100 < sum(fails) < 200
    assert 0.2 < sorted(durations.values())[250] < 0.32
    assert one.transfer_s(1_000_000) == pytest.approx(1.01)
    assert one.profile()[0].simulated
    assert one.capacity() == Resources(cpu=0.0, gpu=1.0)


def test_more_devices_join_the_inventory() -> None:
    found = discover(more=[Simulated(1, count=2, memory=4 * GIB)])
    assert found.capacity().gpu == 2.0 + len(find_gpus())
    assert any(one.kind == "gpu" and one.simulated for one in found.profile())


def test_the_system_tells_name_features_nodes_and_limits_of_a_processor(tmp_path: Path) -> None:
    def tell(path: str, text: str) -> None:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)

    assert hardware(tmp_path).watts == 0
    assert hardware(tmp_path).name
    core = "model name\t: Big Core\nflags\t\t: fpu avx2 fma\n\n"
    tell("proc/cpuinfo", core.replace("Big", "First") + core)
    for node in (0, 1):
        tell(f"sys/devices/system/node/node{node}/cpulist", "0")
        tell(f"sys/class/powercap/intel-rapl:{node}/constraint_0_power_limit_uw", "125000000\n")
    tell("sys/class/powercap/intel-rapl:0:0/constraint_0_power_limit_uw", "99000000\n")
    tell("sys/class/thermal/thermal_zone0/trip_point_1_type", "critical\n")
    tell("sys/class/thermal/thermal_zone0/trip_point_1_temp", "98000\n")
    tell("sys/class/thermal/thermal_zone0/trip_point_0_type", "passive\n")
    tell("sys/class/thermal/thermal_zone0/trip_point_0_temp", "60000\n")
    found = hardware(tmp_path)
    assert (found.name, found.features, found.watts) == ("First Core", ("avx2", "fma", "numa=2", "limit=98C"), 250.0)


def test_calibration_measures_something_of_everything(tmp_path: Path) -> None:
    measured = calibrate(tmp_path, 0.01, [Card(0, "no card", 8 * GIB)])
    (cpu,) = measured.devices
    assert min(cpu.speed, cpu.gflops, measured.disk_bytes_s) > 0
    assert cpu.memory_bytes_s > 1e6
    assert cpu.by == processor().by
    assert list(tmp_path.iterdir()) == []


def test_figures_are_kept_for_this_very_machine_and_reach_their_own_devices(tmp_path: Path) -> None:
    devices = (
        DeviceProfile("cpu", "A"), DeviceProfile("edge", "A"), DeviceProfile("gpu", "G"),
        DeviceProfile("gpu", "H"), DeviceProfile("gpu", "S", simulated=True),
    )  # fmt: skip
    figures = tuple(Measured(kind, at, speed, 100.0, 1e10, "numpy") for kind, at, speed in
                    (("cpu", 0, 0.5), ("gpu", 1, 70.0), ("gpu", 2, 80.0)))  # fmt: skip
    links = {host_of("10.0.0.1:7420"): LinkProfile(1e6, 0.01)}
    made = Calibration(figures, 1e8, machine_of(devices), 1.0, links)
    keep(tmp_path / "home", made)
    assert kept(tmp_path / "home", devices) == made
    assert kept(tmp_path / "home", devices[:1]) is None
    assert kept(tmp_path, devices) is None
    applied = made.applied(devices)
    assert [(one.speed, one.gflops, one.calibrated) for one in applied] == [
        (0.5, 100.0, True), (0.5, 100.0, True), (1.0, 0.0, False), (70.0, 100.0, True), (1.0, 0.0, False),
    ]  # fmt: skip
    (tmp_path / "home" / "calibration.json").write_text("{")
    assert kept(tmp_path / "home", devices) is None


@pytest.mark.parametrize("engine", [processor(), Engine("python", "cpu")], ids=lambda one: one.by)
def test_kernels_do_their_work_and_notice_a_wrong_result(engine: Engine) -> None:
    product, copy = matmul(engine, 33), triad(engine, 100_001, threads=2)
    assert product.work == 2 * 33**3
    for kernel in (product, copy):
        with pytest.raises((ArithmeticError, IndexError)):
            kernel.check()  # nothing was computed yet
        kernel.act()
        kernel.check()


def test_no_card_is_made_up_where_nothing_reaches_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("torch", "cupy"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(Unavailable, match="no card"):
        card()
