"""The runtime: does what a Plan says, under torchrun. Importing it loads neither torch nor diffusers."""

from runtime.bench import bench
from runtime.calibrate import Calibration, calibrate
from runtime.events import Progress
from runtime.failures import LaunchError
from runtime.launch import command, launch
from runtime.nodes import Node
from runtime.prove import Proof, prove, prove_all
from runtime.report import Report

__all__ = [
    "Calibration",
    "LaunchError",
    "Node",
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
