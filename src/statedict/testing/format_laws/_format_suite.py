"""FormatSuite: what every format of checkpoints in one file must do."""

from __future__ import annotations

from ._content_laws import ContentLaws
from ._cost_laws import CostLaws
from ._damage_laws import DamageLaws


class FormatSuite(ContentLaws, DamageLaws, CostLaws):
    """The laws of a format of checkpoints in one file, as a pytest class: subclass it and provide `format` and `write`.

    What else a subclass may say about its format is in `FormatUnderTest`.

    >>> import io, statedict
    >>> class TestNpz(FormatSuite):
    ...     format = "npz"
    ...
    ...     def write(self, state, metadata):
    ...         file = io.BytesIO()
    ...         statedict.save(statedict.StateDict(state), file, format="npz", metadata=metadata)
    ...         return file.getvalue()
    >>> TestNpz().test_truncated_files_are_refused()
    """
