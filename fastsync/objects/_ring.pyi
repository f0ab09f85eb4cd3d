from queue import Empty as Empty
from queue import Full as Full

__test__: dict[str, str]

class ShutDown(Exception): ...
