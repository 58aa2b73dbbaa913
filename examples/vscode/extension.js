// Starts `omni lsp` for the files that it reads; all else is the language server's.
const { workspace } = require("vscode");
const { LanguageClient } = require("vscode-languageclient/node");

let client;

async function activate() {
  const [command, ...args] = workspace.getConfiguration("omni").get("command");
  const languages = ["yaml", "dockercompose", "shellscript", "dockerfile", "python"];
  client = new LanguageClient(
    "omni",
    "omni-config",
    { command, args },
    {
      documentSelector: languages.map((language) => ({ scheme: "file", language })),
      synchronize: { fileEvents: workspace.createFileSystemWatcher("**/{omni.toml,pyproject.toml}") },
    },
  );
  await client.start();
}

function deactivate() {
  return client?.stop();
}

module.exports = { activate, deactivate };
