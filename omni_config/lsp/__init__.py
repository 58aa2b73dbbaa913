"""``omni lsp``: what an editor asks while a file is typed. Only ``server`` speaks the protocol."""
