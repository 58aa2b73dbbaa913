"""``omni lsp``, driven by a real client over standard input and output: edits that break files and mend them."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_lsp
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from lsprotocol import types as lsp
from pytest_lsp import ClientServerConfig, LanguageClient

from omni_config.checking.choices import Choices
from omni_config.lsp.actions import fix_all, repairs
from omni_config.lsp.complete import complete
from omni_config.lsp.hover import hover
from omni_config.lsp.opened import Opened

on_a_server = pytest.mark.asyncio(loop_scope="module")

OURS = """\
version: 1
model: Qwen/Qwen-Image
parallel:
  ulysses_degree: 4
"""
SHELL = "#!/bin/sh\nvllm serve Qwen/Qwen-Image --omni \\\n  --usp 4\n"
COMPOSE = """\
services:
  images:
    image: vllm/vllm-omni:v0.30.0
    command: vllm serve Qwen/Qwen-Image --omni --usp 4
"""
DOCKERFILE = 'FROM vllm/vllm-omni:v0.30.0\nCMD ["vllm", "serve", "Qwen/Qwen-Image", "--omni", "--usp", "4"]\n'
MANIFEST = """\
apiVersion: v1
kind: Pod
metadata: {name: images}
spec:
  containers:
    - name: images
      image: vllm/vllm-omni:v0.30.0
      command: [vllm, serve, Qwen/Qwen-Image, --omni, --usp, "4"]
"""
STAGES = """\
stage_args:
  - stage_id: 0
    stage_type: diffusion
    engine_args:
      model: Qwen/Qwen-Image
      parallel_config:
        ulysses_degree: 4
"""
PYTHON = """\
from vllm_omni.entrypoints.omni import Omni
omni = Omni(model="Qwen/Qwen-Image", ulysses_degree=4)
"""
COMMAND = [sys.executable, "-m", "omni_config", "lsp"]


@pytest_lsp.fixture(config=ClientServerConfig(server_command=COMMAND), scope="module")
async def client(lsp_client: LanguageClient) -> AsyncIterator[None]:
    item = lsp.ClientCompletionItemOptions(documentation_format=[lsp.MarkupKind.Markdown])
    capabilities = lsp.ClientCapabilities(
        general=lsp.GeneralClientCapabilities(position_encodings=["utf-16"]),
        text_document=lsp.TextDocumentClientCapabilities(
            completion=lsp.CompletionClientCapabilities(completion_item=item)
        ),
    )
    await lsp_client.initialize_session(lsp.InitializeParams(capabilities=capabilities))
    yield
    await lsp_client.shutdown_session()


class File:
    """A file as an editor has it open."""

    def __init__(self, client: LanguageClient, path: Path) -> None:
        self.client, self.uri, self.path, self.version, self.text = client, path.as_uri(), path, 0, ""
        self.diagnostics: list[lsp.Diagnostic] = []

    async def open(self, text: str) -> list[lsp.Diagnostic]:
        self.text = text
        item = lsp.TextDocumentItem(uri=self.uri, language_id="yaml", version=0, text=text)
        self.client.text_document_did_open(lsp.DidOpenTextDocumentParams(item))
        return await self.told()

    async def edit(self, old: str, new: str) -> list[lsp.Diagnostic]:
        """Type ``new`` in place of ``old``: only that part is sent."""
        at = self.text.index(old)
        place = lsp.Range(self.position(at), self.position(at + len(old)))
        self.text = self.text.replace(old, new, 1)
        self.version += 1
        change = lsp.TextDocumentContentChangePartial(text=new, range=place)
        identifier = lsp.VersionedTextDocumentIdentifier(version=self.version, uri=self.uri)
        self.client.text_document_did_change(lsp.DidChangeTextDocumentParams(identifier, [change]))
        return await self.told()

    async def told(self) -> list[lsp.Diagnostic]:
        heard: asyncio.Queue[lsp.PublishDiagnosticsParams] = asyncio.Queue()

        def hear(params: lsp.PublishDiagnosticsParams) -> None:
            heard.put_nowait(params)
            listen(lsp.TEXT_DOCUMENT_PUBLISH_DIAGNOSTICS, hear)  # at once: more than one may come at a time

        listen = self.client.protocol.wait_for_notification
        listen(lsp.TEXT_DOCUMENT_PUBLISH_DIAGNOSTICS, hear)
        while True:
            told = await heard.get()
            if told.uri == self.uri and told.version == self.version:
                self.diagnostics = list(told.diagnostics)
                return self.diagnostics

    def position(self, at: int) -> lsp.Position:
        line = self.text.count("\n", 0, at)
        return lsp.Position(line, len(self.text[self.text.rfind("\n", 0, at) + 1 : at].encode("utf-16-le")) // 2)

    def after(self, words: str) -> lsp.Position:
        return self.position(self.text.index(words) + len(words))

    @property
    def codes(self) -> list[object]:
        return [one.code for one in self.diagnostics if one.severity != lsp.DiagnosticSeverity.Hint]

    async def hover(self, words: str) -> str:
        params = lsp.HoverParams(lsp.TextDocumentIdentifier(self.uri), self.after(words))
        found = await self.client.text_document_hover_async(params)
        return found.contents.value if found else ""

    async def complete(self, words: str) -> dict[str, lsp.CompletionItem]:
        params = lsp.CompletionParams(lsp.TextDocumentIdentifier(self.uri), self.after(words))
        found = await self.client.text_document_completion_async(params)
        return {item.label: item for item in found.items}

    async def actions(self, only: str | None = None) -> list[lsp.CodeAction]:
        place = lsp.Range(self.position(0), self.position(len(self.text)))
        context = lsp.CodeActionContext(self.diagnostics, only=[only] if only else None)
        params = lsp.CodeActionParams(lsp.TextDocumentIdentifier(self.uri), place, context)
        return list(await self.client.text_document_code_action_async(params) or [])

    async def apply(self, action: lsp.CodeAction) -> list[lsp.Diagnostic]:
        assert action.edit
        assert action.edit.changes
        ((uri, (edit,)),) = action.edit.changes.items()
        assert uri == self.uri
        lines = self.text.splitlines(keepends=True)
        start, end = (sum(map(len, lines[: at.line])) + at.character for at in (edit.range.start, edit.range.end))
        self.text = self.text[:start] + edit.new_text + self.text[end:]
        self.version += 1
        identifier = lsp.VersionedTextDocumentIdentifier(version=self.version, uri=self.uri)
        whole = lsp.TextDocumentContentChangeWholeDocument(self.text)
        self.client.text_document_did_change(lsp.DidChangeTextDocumentParams(identifier, [whole]))
        return await self.told()


KINDS = [
    ("omni.yaml", OURS, "ulysses_degree: 4", "ulysses_degree: 5", "ulysses_degree"),
    ("run.sh", SHELL, "--usp 4", "--usp 5", "--usp"),
    ("compose.yaml", COMPOSE, "--usp 4", "--usp 5", "--usp"),
    ("Dockerfile", DOCKERFILE, '"--usp", "4"', '"--usp", "5"', "--usp"),
    ("pod.yaml", MANIFEST, '--usp, "4"', '--usp, "5"', "--usp"),
    ("stages.yaml", STAGES, "ulysses_degree: 4", "ulysses_degree: 5", "ulysses_degree"),
    ("serve.py", PYTHON, "ulysses_degree=4", "ulysses_degree=5", "ulysses_degree"),
]


@on_a_server
@pytest.mark.parametrize(("name", "text", "good", "bad", "word"), KINDS, ids=[kind[0] for kind in KINDS])
async def test_an_edit_breaks_a_file_and_a_repair_mends_it(
    client: LanguageClient, tmp_path: Path, name: str, text: str, good: str, bad: str, word: str
) -> None:
    file = File(client, tmp_path / name)
    await file.open(text)
    assert "OMNI103" not in file.codes
    await file.edit(good, bad)
    (found,) = [one for one in file.diagnostics if one.code == "OMNI103"]
    assert found.severity == lsp.DiagnosticSeverity.Error
    assert found.range.start.line == found.range.end.line == file.after(bad).line
    assert found.code_description
    assert found.code_description.href.endswith("/OMNI103.md")
    assert "OMNI103" in await file.hover(word)
    actions = [one for one in await file.actions() if one.kind == lsp.CodeActionKind.QuickFix]
    assert actions
    assert any(one.code == "OMNI103" for one in actions[0].diagnostics or [])
    await file.apply(actions[0])
    assert "OMNI103" not in file.codes
    assert "6" in file.text
    await file.edit("6", "4")
    assert "4 ranks in all, 6 heads each" in await file.hover(word)


@on_a_server
async def test_a_half_typed_file_is_told_and_mended_by_typing_on(client: LanguageClient, tmp_path: Path) -> None:
    file = File(client, tmp_path / "omni.yaml")
    assert await file.open(OURS) == []
    await file.edit("  ulysses_degree: 4\n", "  ulysses_degree: 4\n  ring_deg")
    assert file.codes == ["OMNI901"]
    keys = await file.complete("  ring_deg")
    assert keys["ring_degree"].text_edit
    assert keys["ring_degree"].text_edit.new_text == "ring_degree: "
    assert "Default: 1." in keys["ring_degree"].documentation.value
    await file.edit("  ring_deg", "  ring_degree: ")
    values = await file.complete("ring_degree: ")
    assert "8 ranks in all" in str(values["2"].detail)
    await file.edit("ring_degree: ", "ring_degree: 2")
    assert file.codes == []


@on_a_server
async def test_only_what_is_legal_here_is_proposed(client: LanguageClient, tmp_path: Path) -> None:
    file = File(client, tmp_path / "omni.yaml")
    await file.open(OURS.replace("4", ""))
    values = await file.complete("ulysses_degree: ")
    assert list(values) == ["1", "2", "3", "4", "6", "8", "12", "24"]  # what divides 24 heads
    assert values["4"].detail == "4 ranks in all, 6 heads each, 4096 image tokens, 1024 each"
    await file.edit("  ulysses_degree: ", "  tensor_parallel_size: 8\n  ulysses_degree: ")
    assert list(await file.complete("ulysses_degree: ")) == ["1", "3"]
    await file.edit(
        "parallel:\n  tensor_parallel_size: 8\n  ulysses_degree: ", "parallel: {tensor_parallel_size: 8, u: }"
    )
    await file.edit("u: }", "ulysses_degree: }")
    assert list(await file.complete("ulysses_degree: ")) == ["1", "3"]


@on_a_server
async def test_models_engines_and_sections_are_proposed(client: LanguageClient, tmp_path: Path) -> None:
    file = File(client, tmp_path / "omni.yaml")
    await file.open("")
    keys = await file.complete("")
    assert {"version", "model", "parallel"} <= keys.keys()
    assert keys["parallel"].text_edit
    assert keys["parallel"].text_edit.new_text == "parallel:\n  "
    await file.open("version: 1\nmodel: Qw\nengine: \n")
    assert "Qwen/Qwen-Image" in await file.complete("model: Qw")
    assert "vllm-omni==0.30" in await file.complete("engine: ")


@on_a_server
async def test_flags_and_their_values_are_proposed(client: LanguageClient, tmp_path: Path) -> None:
    file = File(client, tmp_path / "run.sh")
    await file.open(SHELL)
    await file.edit("--usp 4", "--cache")
    flags = await file.complete("--cache")
    assert "vllm_omni/" in flags["--cache-backend"].documentation.value
    assert "--cfg-parallel-size" in flags
    await file.edit("--cache", "--usp ")
    assert list(await file.complete("--usp ")) == ["1", "2", "3", "4", "6", "8", "12", "24"]
    file = File(client, tmp_path / "serve.py")
    await file.open(PYTHON)
    await file.edit("ulysses_degree=4", "ulysses_degree=")
    assert "4" in await file.complete("ulysses_degree=")


@on_a_server
async def test_keys_of_engines_files_are_proposed(client: LanguageClient, tmp_path: Path) -> None:
    file = File(client, tmp_path / "stages.yaml")
    await file.open(STAGES)
    await file.edit("ulysses_degree: 4\n", "ulysses_degree: 4\n        ring")
    keys = await file.complete("        ring")
    assert "Ring attention" in keys["ring_degree"].documentation.value
    assert "ulysses_degree" not in keys
    assert "model" not in keys
    await file.edit("\n        ring", "\n      vae")
    assert {"vae_use_tiling", "diffusion_load_format"} <= (await file.complete("\n      vae")).keys()
    await file.edit("\n      vae", "\n        ring_degree: ")
    assert {"1", "2"} <= (await file.complete("ring_degree: ")).keys()
    other = File(client, tmp_path / "caches.yaml")
    await other.open("cache_config:\n  max_warmup_steps: 8\nparallelism_config:\n  ulysses_size: 2\n")
    await other.edit("ulysses_size: 2\n", "ulysses_size: 2\n  ")
    assert "ring_size" in await other.complete("ulysses_size: 2\n  ")


@on_a_server
async def test_arguments_of_python_are_proposed(client: LanguageClient, tmp_path: Path) -> None:
    file = File(client, tmp_path / "serve.py")
    await file.open(PYTHON)
    await file.edit("ulysses_degree=4)", "vae, enforce_eager=True)")
    found = await file.complete("vae")
    assert found["vae_use_tiling="].text_edit
    assert found["vae_use_tiling="].text_edit.range.start == file.after('Qwen-Image", ')
    assert not {"model=", "enforce_eager=", "num_inference_steps="} & found.keys()
    await file.edit("vae, ", 'cache_backend="')
    assert {one.text_edit.new_text for one in (await file.complete('cache_backend="')).values()} == {
        "tea_cache",
        "cache_dit",
    }
    other = File(client, tmp_path / "generate.py")
    await other.open(
        'import diffusers\npipe = diffusers.QwenImagePipeline.from_pretrained("Qwen/Qwen-Image")\npipe("a")\n'
    )
    await other.edit('pipe("a")', 'pipe("a", )')
    assert "num_inference_steps=" in await other.complete('pipe("a", ')


@on_a_server
async def test_each_deployment_of_a_file_is_asked_for_itself(client: LanguageClient, tmp_path: Path) -> None:
    file = File(client, tmp_path / "run.sh")
    await file.open(SHELL + "sglang generate --model-path Qwen/Qwen-Image --num-gpus 2\n")
    await file.edit("--num-gpus 2", "--")
    flags = await file.complete("Qwen-Image --")
    assert "--enable-prefix-caching" in flags
    assert "--sp-degree" not in flags
    flags = await file.complete("--model-path Qwen/Qwen-Image --")
    assert "--sp-degree" in flags
    assert "--enable-prefix-caching" not in flags
    await file.edit("--usp 4", "--cache-backend cache_dit")
    assert set(await file.complete("--cache-backend ")) == {"cache_dit", "tea_cache"}
    await file.edit("Qwen/Qwen-Image", "Wan-AI/Wan2.1-T2V-14B-Diffusers")
    assert list(await file.complete("--cache-backend ")) == ["cache_dit"]  # TeaCache is refused for this model
    assert "vllm-omni==0.3" in await file.hover("vllm")
    assert "sglang==0.5" in await file.hover("sgla")


@on_a_server
async def test_what_is_the_engines_own_is_explained(client: LanguageClient, tmp_path: Path) -> None:
    file = File(client, tmp_path / "stages.yaml")
    await file.open(STAGES.replace("      model:", "      diffusion_load_format: default\n      model:"))
    assert "of `OmniDiffusionConfig`" in await file.hover("diffusion_load")
    assert "24 heads" in await file.hover("model: Qwen")
    script = File(client, tmp_path / "run.sh")
    await script.open(SHELL.replace("vllm serve", "VLLM_CACHE_ROOT=/tmp vllm serve"))
    assert "reads it at `vllm" in await script.hover("VLLM_CACHE")
    assert "4 ranks in all" in await script.hover(" vll")


@on_a_server
async def test_codes_and_flags_are_explained(client: LanguageClient, tmp_path: Path) -> None:
    file = File(client, tmp_path / "omni.yaml")
    await file.open(OURS.replace("degree: 4", "degree: 5  # omni: ignore[OMNI103]"))
    assert file.codes == []
    assert "ulysses divides heads" in await file.hover("OMNI10")
    links = await client.text_document_document_link_async(lsp.DocumentLinkParams(lsp.TextDocumentIdentifier(file.uri)))
    assert [link.target.rpartition("/")[2] for link in links] == ["OMNI103.md"]
    assert "their product" in await file.hover("paral")
    assert await file.hover("version: 1\n") is not None
    script = File(client, tmp_path / "run.sh")
    await script.open(SHELL.replace("--usp 4", "--enable-prefix-caching --vae-use-tiling"))
    assert "Declared at `" in await script.hover("--enable-prefix")
    assert "Decode tile by tile" in await script.hover("--vae-use")


@on_a_server
async def test_misspelt_keys_are_righted_and_all_is_repaired(client: LanguageClient, tmp_path: Path) -> None:
    file = File(client, tmp_path / "omni.yaml")
    await file.open(OURS.replace("ulysses_degree", "ulyses_degree"))
    assert file.codes == ["OMNI904"]
    (action,) = await file.actions("quickfix")
    await file.apply(action)
    assert file.text == OURS
    await file.edit("  ulysses_degree: 4\n", "  vae_patch_parallel_size: 8\nvae: {vae_use_tiling: true}\n")
    assert file.codes == ["OMNI401"]
    (whole,) = await file.actions("source.fixAll.omni")
    assert whole.kind == "source.fixAll.omni"
    await file.apply(whole)
    assert file.codes == []
    assert await file.actions("source.fixAll") == []


@on_a_server
async def test_columns_are_those_of_the_editor(client: LanguageClient, tmp_path: Path) -> None:
    file = File(client, tmp_path / "omni.yaml")
    await file.open("version: 1\nmodel: Qwen/Qwen-Image\nsampling: {prompt: '𝄞𝄞', steps: 1}\n")
    (found,) = file.diagnostics
    assert (found.code, found.range.start.character, found.range.end.character) == ("OMNI904", 27, 32)


@on_a_server
async def test_related_places_are_linked(client: LanguageClient, tmp_path: Path) -> None:
    file = File(client, tmp_path / "omni.yaml")
    await file.open("version: 1\nmodel: Qwen/Qwen-Image\nhardware: {gpus: 3}\nparallel: {ulysses_degree: 2}\n")
    (found,) = [one for one in file.diagnostics if one.code == "OMNI101"]
    related = found.related_information or []
    assert [(one.location.uri, one.location.range.start.line) for one in related] == [(file.uri, 3)]


@on_a_server
async def test_files_of_other_purposes_are_left_alone(client: LanguageClient, tmp_path: Path) -> None:
    file = File(client, tmp_path / "other.yaml")
    assert await file.open("name: build\nsteps: []\n") == []
    assert await file.complete("name: build\n") == {}
    assert await file.actions() == []


@on_a_server
async def test_the_table_of_the_repository_counts(client: LanguageClient, tmp_path: Path) -> None:
    (tmp_path / "omni.toml").write_text('ignore = ["OMNI103"]\n')
    file = File(client, tmp_path / "omni.yaml")
    await file.open(OURS.replace("4", "5"))
    assert file.codes == []
    (tmp_path / "omni.toml").write_text("")
    uri = (tmp_path / "omni.toml").as_uri()
    client.text_document_did_save(lsp.DidSaveTextDocumentParams(lsp.TextDocumentIdentifier(uri)))
    await file.told()
    assert file.codes == ["OMNI103"]
    (tmp_path / "omni.toml").write_text('exclude = ["omni.yaml"]\n')
    client.text_document_did_save(lsp.DidSaveTextDocumentParams(lsp.TextDocumentIdentifier(uri)))
    assert await file.told() == []


@on_a_server
async def test_a_key_of_a_file_of_200_lines_is_answered_in_50_ms(client: LanguageClient, tmp_path: Path) -> None:
    file = File(client, tmp_path / "run.sh")
    comments = "".join(f"# {number}\nexport NAME_{number}=value\n" for number in range(98))
    await file.open("#!/bin/sh\n" + comments + "vllm serve Qwen/Qwen-Image --omni \\\n  --usp 4\n")
    assert file.text.count("\n") >= 199
    taken = []
    for number in range(15):
        old, new = ("--usp 5", "--usp 4") if number % 2 else ("--usp 4", "--usp 5")
        begun = time.perf_counter()
        await file.edit(old, new)
        taken.append(time.perf_counter() - begun)
        if number == 0:
            assert "OMNI103" in file.codes
    assert min(taken) < 0.05, taken


PIECES = ["", " ", "\n", '"', "{", ":", "--", "\\", "5", "é", "\t", "- ", "$X", "# omni: ignore[OMNI103]"]


@hypothesis_settings(max_examples=60)
@given(
    st.sampled_from(KINDS),
    st.lists(st.tuples(st.integers(0, 300), st.integers(0, 12), st.sampled_from(PIECES)), min_size=1, max_size=4),
    st.integers(0, 12),
    st.integers(0, 60),
)
def test_whatever_is_typed_is_answered(
    kind: tuple[str, str, str, str, str], edits: list[tuple[int, int, str]], line: int, column: int
) -> None:
    name, text = kind[:2]
    before = Opened(name, text, Choices())
    for start, length, piece in edits:
        at = start % (len(text) + 1)
        text = text[:at] + piece + text[at + length :]
    opened = Opened(name, text, Choices(), before)
    hover(opened, line, column)
    complete(opened, line, column)
    for repair in [*repairs(opened, 0, len(opened.lines)), *filter(None, [fix_all(opened)])]:
        edit = repair.edit
        assert text[: edit.start] + edit.text + text[edit.end :] != text


def test_without_pygls_the_command_says_how_to_install_it(tmp_path: Path) -> None:
    (tmp_path / "pygls.py").write_text("raise ImportError\n")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); sys.argv = ['omni', 'lsp'];"
    done = subprocess.run(
        [sys.executable, "-c", f"{code} from omni_config.__main__ import main; main()"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert 'pip install "omni-config[lsp]"' in done.stderr
