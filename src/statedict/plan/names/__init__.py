"""Which name becomes which: templates, rules and KeyMaps; wrapper prefixes; selection; near misses.

A `_template` parses one side of a rule, a `_rule` both, a `_keymap` many, found through an `_index`. `_resolve`
applies them to the names of a state and gives `_recipe`s, which `_compute` turns into leaves. `_generalise` goes the
other way, from pairs of names to rules.
"""
