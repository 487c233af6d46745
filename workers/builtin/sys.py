"""Built-in skill sys.info: the facts of one machine, as one flat record."""

from __future__ import annotations

import os
import platform
import shutil
import time
from typing import TypedDict

import psutil

from devices.gpu import find_gpus
from protocol.builtin import BY_NAME
from workers.context import SkillContext
from workers.skill import skill


class Info(TypedDict):
    worker: str
    host: str
    os: str
    arch: str
    python: str
    cores: int
    load: float
    mem_total: int
    mem_free: int
    disk_total: int
    disk_free: int
    gpu: int
    gpu_name: str
    vram_total: int
    vram_free: int
    uptime_s: float


@skill(spec=BY_NAME["sys.info"])
def info(ctx: SkillContext) -> Info:
    """`load` is the one-minute average; disk is that of the worker's own folder."""
    memory = psutil.virtual_memory()
    disk = shutil.disk_usage(ctx.run_folder)
    gpus = find_gpus()
    return Info(
        worker=ctx.worker,
        host=platform.node(),
        os=f"{platform.system()} {platform.release()}",
        arch=platform.machine(),
        python=platform.python_version(),
        cores=os.cpu_count() or 1,
        load=round(os.getloadavg()[0], 2),
        mem_total=memory.total,
        mem_free=memory.available,
        disk_total=disk.total,
        disk_free=disk.free,
        gpu=len(gpus),
        gpu_name=gpus[0].name if gpus else "",
        vram_total=sum(gpu.memory for gpu in gpus),
        vram_free=sum(gpu.free() for gpu in gpus),
        uptime_s=round(time.time() - psutil.boot_time(), 1),
    )
