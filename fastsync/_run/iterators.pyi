from types import FunctionType
from typing import Any

REPLACEMENTS: dict[str, Any]

def of_ours(function: FunctionType, **names: Any) -> FunctionType: ...
