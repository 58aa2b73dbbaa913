"""The runtime: does what a Plan says, under torchrun. Importing it loads neither torch nor diffusers."""

from runtime.events import Progress
from runtime.launch import LaunchError, command, launch
from runtime.report import Report

__all__ = ["LaunchError", "Progress", "Report", "command", "launch"]
