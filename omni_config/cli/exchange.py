"""``omni import`` and ``omni export``: files of other engines into ours, and ours into theirs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from omni_config.checking.document import CheckResult, judge
from omni_config.checking.files import check, read
from omni_config.cli.explained import show_findings
from omni_config.cli.inputs import usually
from omni_config.cli.policies import Rules, load_rules

_HEAD = "# yaml-language-server: $schema=https://github.com/omni-config/omni-config/raw/main/docs/schema.json\n"


def import_(
    file: Annotated[Path, typer.Argument(help="A script, Dockerfile, manifest or YAML of another engine.")],
    model: Annotated[str | None, typer.Option("--model", help="The model, where the file names none.")] = None,
    engine: Annotated[str | None, typer.Option("--engine", help="Its version, such as vllm-omni==0.30.")] = None,
) -> None:
    """Print a file of another engine as YAML of ours, one document a deployment; what has no setting is named.

    Exit code: 0 done, 2 a file that is not understood.
    """
    assume = {name: value for name, value in (("model", model), ("engine", engine)) if value is not None}
    documents = check(file, assume=usually(file) | assume)
    if not documents[0].foreign:
        _fail(f"{file}: {_reason(documents[0])}")
    judged = [document for document in documents if document.node is not None]
    if any(finding.code == "OMNI604" and "names no" in finding.message for item in judged for finding in item.findings):
        _fail(f"{file} names no model; next: --model MODEL")
    show_findings([finding for item in documents for finding in item.findings if finding.code.startswith("OMNI60")])
    if not judged:
        _fail(f"{file} has no diffusion stage")
    for document in judged:
        if document.document and document.document.left_out:
            typer.echo(
                f"omni: left out, as no setting stands for them: {', '.join(document.document.left_out)}", err=True
            )
    typer.echo(_HEAD + "---\n".join(as_yaml(item) for item in judged), nl=False)


def export(
    file: Annotated[Path, typer.Argument(help="The config.")],
    to: Annotated[str, typer.Option("--to", help="vllm-omni, sglang, xdit or cache-dit; a version may follow ==.")],
    rules: Rules = [],  # noqa: B006
) -> None:
    """Print the command or file that runs a config on another engine; what that engine cannot do is refused.

    Exit code: 0 done, 1 refused, 2 a config that cannot be used.
    """
    from omni_config.catalog.load import catalog
    from omni_config.checking.export import export as write
    from omni_config.engines import ENGINES

    engine = catalog().engine(to)
    exported = [name for name, known in ENGINES.items() if known.exported]
    if engine is None or engine.family not in exported:
        known = [name for name in catalog().engine_ids if name.partition("==")[0] in exported]
        raise typer.BadParameter(f"{to}: expected one of {', '.join(known)}", param_hint="--to")
    policies = load_rules(rules)
    texts = []
    for document in read(file):
        checked = judge(document.for_engine(to).as_ours(), policies)
        if checked.resolution is None:
            show_findings(checked.findings)
            raise typer.Exit(2)
        text, findings = write(checked)
        show_findings([finding for finding in findings if text is None or finding.severity != "advice"])
        if text is None:
            raise typer.Exit(1)
        texts.append(text)
    typer.echo("\n".join(texts), nl=False)


def as_yaml(checked: CheckResult) -> str:
    """A checked deployment as a document of ours, with only what its file says."""
    import yaml

    from omni_config.schema.document import Document

    assert checked.node is not None
    tree: dict[str, Any] = {key: checked.node.value[key] for key in Document.model_fields if key in checked.node.value}
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, width=120)


def _reason(checked: CheckResult) -> str:
    if checked.resolution is not None:
        return "is a config of ours already"
    return (
        f"no command or file of an engine is in it ({checked.findings[0].message})" if checked.findings else "is empty"
    )


def _fail(message: str) -> None:
    typer.echo(f"omni: {message}", err=True)
    raise typer.Exit(2)
