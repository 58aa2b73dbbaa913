"""What stands in for a GPU, or lets a small model in the place of a published one; nothing here decides a verdict.

Validation, the mesh, attention over ranks and caches are xDiT's own. Each module says why it is there (its docstring)
and ``FOR`` which case ("no GPU", "small models", "a small environment"); ``apply(xfuser)`` puts it in place: before the
package is imported, where ``xfuser`` is None, and after.
"""
