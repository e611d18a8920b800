"""Arrays in files that are larger than memory: read ahead, let go of, and read past the cache."""

from curation.mapped.direct import ROOMS, Direct
from curation.mapped.kept import WORTH, Keeping
from curation.mapped.maps import Mapped, owner_of

__all__ = ["ROOMS", "WORTH", "Direct", "Keeping", "Mapped", "owner_of"]
