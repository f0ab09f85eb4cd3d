from importlib.machinery import ModuleSpec
from types import ModuleType

class Importer:
    @staticmethod
    def find_spec(name: str, target: ModuleType | None = None) -> ModuleSpec | None: ...
    @staticmethod
    def create_module(spec: ModuleSpec) -> ModuleType: ...
    @staticmethod
    def exec_module(module: ModuleType) -> None: ...

def add_to(package: str, path: list[str]) -> None: ...

__test__: dict[str, str]
