"""An organisation's own rules: ``omni check --rules policy.yaml``, in the same kinds as the catalog's.

- code: ACME001
  name: production-tiling
  kind: requires
  when: width is not None and width > 2048
  needs: vae_use_tiling
  fields: [vae_use_tiling, width]
  repairs: [{vae_use_tiling: true}]
  message: production uses VAE tiling above 2048 px
  why: A decode in one piece has run out of memory twice.
  fix: set vae.vae_use_tiling to true
"""

from __future__ import annotations

import re
from pathlib import Path

from omni_config.catalog.load import catalog, rules_of
from omni_config.reading.nodes import Unreadable, decode, parse
from omni_config.rules.expressions import parse as parse_expression
from omni_config.rules.kinds import Reading
from omni_config.rules.quantities import DERIVED, DIMS
from omni_config.rules.rule import Rule
from omni_config.schema.settings import FIELDS

_OPTIONAL = {"source": "policy", "bad": "", "good": ""}


def load_policies(path: str | Path) -> tuple[Rule, ...]:
    """The rules in a policy file.

    Raises:
        ValueError: it cannot be read, or a rule is not valid; the message is one line that says which and why.
    """
    try:
        nodes = parse(decode(str(path), Path(path).read_bytes()))
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from None
    except Unreadable as error:
        raise ValueError(f"{error.finding.span}: {error}") from None
    items = nodes[0].value if nodes else []
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise ValueError(f"{path}: a policy is a list of rules")
    try:
        rules = rules_of([_OPTIONAL | item for item in items], catalog().engine_aliases)
        for rule in rules:
            _check_names(rule)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return rules


def _check_names(rule: Rule) -> None:
    if not re.fullmatch(r"(?!OMNI)[A-Z]{2,10}\d{3}", rule.code):
        raise ValueError(f"{rule.code}: a code is letters and three digits, such as ACME001, and OMNI is taken")
    if isinstance(rule, Reading):
        raise ValueError(f"{rule.code}: the kind 'reading' is for the reader of the file itself")
    known = {*FIELDS, *DERIVED, *DIMS, *catalog().features}
    for name, among in rule.names():
        if name not in (FIELDS if among == "fields" else catalog().features if among == "features" else known):
            raise ValueError(f"{rule.code}: {name} is not one of the {among}")
    for text in rule.expressions():
        parse_expression(text)
