"""Read pickles as inert data: nothing that they name is imported or called.

`_parse` runs the `_machine`, whose opcodes are in `_opcodes`, `_literals` and `_containers`. `_calls` decides what
calling a global produces, with the constructors in `_plain`, `_scalars`, `_arrays`, `_tensors` and `_compounds`.
`_record` and `_stretch` are the fast path for ordinary tensors, one or thousands at a time.
"""
