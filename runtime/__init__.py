"""The runtime: does what a Plan says, under torchrun. Importing it loads neither torch nor diffusers."""

from runtime.events import Progress
from runtime.launcher.failures import LaunchError
from runtime.launcher.launch import command, launch
from runtime.launcher.machine import Machine
from runtime.measure.bench import bench
from runtime.measure.calibrate import Calibration, calibrate
from runtime.proof.prove import Proof, prove, prove_all
from runtime.report import Report

__all__ = [
    "Calibration",
    "LaunchError",
    "Machine",
    "Progress",
    "Proof",
    "Report",
    "bench",
    "calibrate",
    "command",
    "launch",
    "prove",
    "prove_all",
]
