"""Draw a session of the language server, for the README: a compose file of a public report, edited, broken and mended.

python docs/draw_session.py        writes docs/lsp.svg from what `omni lsp` answers
"""

from __future__ import annotations

import asyncio
import io
import re
import sys
from pathlib import Path

from lsprotocol import types as lsp
from pygls.lsp.client import BaseLanguageClient
from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).parents[1]
WIDTH = 126
#: https://github.com/vllm-project/vllm-omni/issues/4814
COMPOSE = """\
services:
  wan:
    image: vllm/vllm-omni:v0.20.0
    command: >
      vllm serve Wan-AI/Wan2.2-T2V-A14B-Diffusers --omni --port 8091 --ulysses-degree 2
      --enable-cpu-offload --vae-use-slicing --vae-use-tiling --cache-backend cache_dit
"""
STYLES = {
    lsp.DiagnosticSeverity.Error: "red",
    lsp.DiagnosticSeverity.Warning: "yellow",
    lsp.DiagnosticSeverity.Hint: "cyan",
}


class Session:
    """A file that is open in the server, and what it has said of it last."""

    def __init__(self) -> None:
        self.client, self.text, self.version = BaseLanguageClient("draw", "1"), COMPOSE, 0
        self.heard: asyncio.Queue[lsp.PublishDiagnosticsParams] = asyncio.Queue()
        self.uri = (ROOT / "compose.yaml").as_uri()
        self.found: list[lsp.Diagnostic] = []

        @self.client.feature(lsp.TEXT_DOCUMENT_PUBLISH_DIAGNOSTICS)
        def hear(params: lsp.PublishDiagnosticsParams) -> None:
            self.heard.put_nowait(params)

    async def begin(self) -> None:
        """Start the server, and open the file."""
        await self.client.start_io(sys.executable, "-m", "omni_config", "lsp")
        await self.client.initialize_async(lsp.InitializeParams(capabilities=lsp.ClientCapabilities()))
        self.client.initialized(lsp.InitializedParams())
        item = lsp.TextDocumentItem(self.uri, "dockercompose", self.version, self.text)
        self.client.text_document_did_open(lsp.DidOpenTextDocumentParams(item))
        await self._told()

    async def end(self) -> None:
        """Stop the server."""
        await self.client.shutdown_async(None)
        self.client.exit(None)
        await self.client.stop()

    async def edit(self, old: str, new: str) -> None:
        """Type a text in place of another."""
        assert old in self.text
        self.text, self.version = self.text.replace(old, new), self.version + 1
        identifier = lsp.VersionedTextDocumentIdentifier(version=self.version, uri=self.uri)
        whole = lsp.TextDocumentContentChangeWholeDocument(self.text)
        self.client.text_document_did_change(lsp.DidChangeTextDocumentParams(identifier, [whole]))
        await self._told()

    async def _told(self) -> None:
        told = await self.heard.get()
        while told.version != self.version:
            told = await self.heard.get()
        self.found = [one for one in told.diagnostics if one.severity != lsp.DiagnosticSeverity.Hint]

    def at(self, words: str) -> lsp.Position:
        """Where the last of some words begins."""
        at = self.text.index(words) + len(words) - 1
        return lsp.Position(self.text.count("\n", 0, at), at - self.text.rfind("\n", 0, at) - 1)

    async def repairs(self) -> list[lsp.CodeAction]:
        """The quick fixes of all that was found."""
        place = lsp.Range(self.found[0].range.start, self.found[0].range.end)
        context = lsp.CodeActionContext(self.found, only=[lsp.CodeActionKind.QuickFix])
        document = lsp.TextDocumentIdentifier(self.uri)
        asked = lsp.CodeActionParams(document, place, context)
        return [
            one
            for one in await self.client.text_document_code_action_async(asked) or []
            if isinstance(one, lsp.CodeAction)
        ]

    async def hover(self, words: str) -> str:
        """What is said of the place where some words end."""
        asked = lsp.HoverParams(lsp.TextDocumentIdentifier(self.uri), self.at(words))
        found = await self.client.text_document_hover_async(asked)
        assert found
        assert isinstance(found.contents, lsp.MarkupContent)
        return re.sub(r"\[(\w+)\]\(\S+\)", r"\1", found.contents.value).replace("**", "").replace("`", "")


def frame(title: str, session: Session, beside: list[Text]) -> Text:
    """The file with its findings under their lines, and what the editor shows beside it."""
    shown = Text().append(f"{title}\n", "bold")
    for number, line in enumerate(session.text.splitlines()):
        text = Text(line)
        here = [one for one in session.found if one.range.start.line == number]
        for one in here:
            text.stylize(
                f"underline bold {STYLES[one.severity or 1]}", one.range.start.character, one.range.end.character
            )
        shown.append(f"{number + 1:>3} ", "bright_black").append(text).append("\n")
        for one in here:
            said = f"{one.code}: {one.message.splitlines()[0]}"
            shown.append(f"      ▲ {said}\n", f"{STYLES[one.severity or 1]}")
    for text in beside:
        shown.append("    ").append(text).append("\n")
    return shown


async def frames() -> list[Text]:
    """What is drawn, one after the other."""
    session = Session()
    await session.begin()
    drawn = [frame("As it was reported", session, [])]
    await session.edit("v0.20.0", "v0.30.0")
    await session.edit("--ulysses-degree 2", "--ulysses-degree 3")
    repairs = await session.repairs()
    menu = [Text(f"{'▸' if number == 0 else ' '} {one.title}", "green") for number, one in enumerate(repairs[:3])]
    drawn.append(frame("Moved to 0.30, and to three GPUs", session, [Text("Quick fixes", "bold"), *menu]))
    assert repairs[0].edit
    assert repairs[0].edit.changes
    ((change,),) = repairs[0].edit.changes.values()
    lines = session.text.splitlines(keepends=True)
    start, end = (sum(map(len, lines[: one.line])) + one.character for one in (change.range.start, change.range.end))
    await session.edit(session.text, session.text[:start] + change.new_text + session.text[end:])
    hover = [Text(line, "cyan") for line in (await session.hover("--ulysses")).split("\n\n")]
    drawn.append(frame("After the first of them; the mouse on --ulysses-degree", session, hover))
    await session.end()
    return drawn


def main() -> None:
    """Write the image."""
    console = Console(record=True, width=WIDTH, file=io.StringIO())
    for text in asyncio.run(frames()):
        console.print(text, soft_wrap=False)
    console.save_svg(str(ROOT / "docs" / "lsp.svg"), title="omni lsp")


if __name__ == "__main__":
    main()
