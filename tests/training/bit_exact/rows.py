"""All rows of the table."""

from tests.training.bit_exact import loaders, plain, ranks

ROWS = {**plain.ROWS, **loaders.ROWS, **ranks.ROWS}
