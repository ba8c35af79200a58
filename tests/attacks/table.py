"""Every attack that anybody can try; those for which one must be root, or have memory to spare, stand elsewhere."""

from __future__ import annotations

import os

from attacks.files import REPLACED
from attacks.manifests import MANIFESTS
from attacks.stores import STORES, STORES_OF_OTHERS

CASES = (*REPLACED, *STORES, *MANIFESTS, *(STORES_OF_OTHERS if os.geteuid() == 0 else ()))
