"""Check, plan and explain deployments of diffusion transformers; needs neither a GPU nor torch.

from omni_config import check, load, resolve
for checked in check("config.yaml"):
    print(checked.findings, checked.plan)
"""

from omni_config.check import Checked, check, load
from omni_config.document import Document
from omni_config.findings import Finding
from omni_config.plan import Plan
from omni_config.resolve import Resolution, resolve

__all__ = ["Checked", "Document", "Finding", "Plan", "Resolution", "check", "load", "resolve"]
__version__ = "0.1.0"
