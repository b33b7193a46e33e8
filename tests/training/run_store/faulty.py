"""A Bucket that fails at a chosen request, or shows lists that are out of date."""

from statedict.errors import RemoteError


class Died(BaseException):
    """The process was killed here."""


class FaultyBucket:
    """A bucket whose n-th request (from 1) fails.

    `kind`: "refuse" (nothing is done), "lose" (it is done, but its response is lost), "die" (the process ends before it),
    "die after". `stale`: lists do not show what was written since the bucket was opened.
    """

    def __init__(self, bucket, at=0, kind="refuse", *, stale=False):
        self._bucket, self._at, self._kind = bucket, at, kind
        self._old = list(bucket.list()) if stale else None
        self.count = 0
        self.dead = False

    @property
    def url(self):
        return self._bucket.url

    def list(self, prefix=""):
        if self._old is not None:
            return [entry for entry in self._old if entry.key.startswith(prefix)]
        return self._do("list", prefix)

    def __getattr__(self, name):
        return lambda *arguments, **options: self._do(name, *arguments, **options)

    def _do(self, name, *arguments, **options):
        if self.dead:
            raise Died
        self.count += 1
        fails = self.count == self._at
        if fails and self._kind.startswith("die"):
            self.dead = True
        if fails and self._kind in ("refuse", "die"):
            self._fail()
        done = getattr(self._bucket, name)(*arguments, **options)
        if fails:
            self._fail()
        return done

    def _fail(self):
        if self.dead:
            raise Died
        raise RemoteError(self.url, "HTTP 503")
