"""What stands in for parts that a machine without a GPU lacks; SGLang itself has a CPU platform, and is not changed.

Each module says why it is there (its docstring) and ``FOR`` which case; ``apply()`` puts it in place before the import.
"""
