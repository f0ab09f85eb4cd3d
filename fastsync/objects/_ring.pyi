from queue import Empty as Empty
from queue import Full as Full

__pyx_capi__: dict[str, object]
__test__: dict[str, str]

class ShutDown(Exception): ...
