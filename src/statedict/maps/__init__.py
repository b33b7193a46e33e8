"""Key maps as data: how the state of one implementation of a model becomes that of another, proven by tests.

A map is a TOML file beside this one (`_map_file` has its keys). `load` reads it, with numbers for its parameters, and
returns a StateMap: a KeyMap that can be printed, inverted, and used wherever renaming rules can. `fitting` finds the maps
that fit two states; `conversion_rules` checks the conversions that transformers itself makes, and `conversion` makes a
KeyMap of them for a model.

>>> import numpy as np, statedict
>>> theirs = {"transformer.wte.weight": np.zeros((50, 32)), "transformer.h.0.mlp.c_fc.weight": np.zeros((32, 128))}
>>> to_nanogpt = statedict.maps.load("gpt2-nanogpt")
>>> to_nanogpt.rename(theirs).spec("transformer.h.0.mlp.c_fc.weight").shape
(128, 32)
"""

from ._conversion_map import ConversionMap, conversion
from ._conversions import ConversionRule, conversion_rules
from ._fitting import MapFit, fitting
from ._library import load, names, read
from ._map_file import MapFile
from ._parameter import Parameter, config_beside
from ._state_map import StateMap

__all__ = [
    "ConversionMap", "ConversionRule", "MapFile", "MapFit", "Parameter", "StateMap", "config_beside", "conversion",
    "conversion_rules", "fitting", "load", "names", "read",
]  # fmt: skip
