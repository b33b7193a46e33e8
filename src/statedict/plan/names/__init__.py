"""Rename, pair and select names: templates, rules and KeyMaps; wrapper prefixes; selection; near misses.

`_template` parses one side of a rule, `_rule` a whole rule, and `_keymap` a list of rules, which `_index` looks up.
`_resolve` applies the rules to the names of a state and returns recipes (`_recipe`), from which an `Evaluator` makes leaves.
`_generalise` does the inverse: it makes rules from pairs of names. `_select` chooses names by
`include` and `exclude`, and pairs the renamed tensors with the slots.
"""
