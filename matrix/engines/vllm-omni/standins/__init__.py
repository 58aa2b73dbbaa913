"""What stands in for a GPU; nothing here decides a verdict.

Arguments, configs, the mesh, pipelines, attention over ranks, caches, offload and sharding are vLLM-Omni's own. Each
module says why it is there (its docstring) and ``FOR`` which case; ``apply(omni)`` puts it in place: before the package
is imported, where ``omni`` is None, and after.
"""
