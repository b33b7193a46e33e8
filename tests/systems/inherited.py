"""Run the library on the simulated system of the process that started this one."""

import os

from tests.systems import VARIABLE, install

if name := os.environ.get(VARIABLE):
    install(name)
